"""The number of actors of a run, and requests that are refused."""

import pytest

from jobs import _cli, estimate
from pipelines.errors import SettingError
from pipelines.runs.placement import choose_resources, describe
from pipelines.runs.request import ActorRequest, RunRequest


def request(**options) -> RunRequest:
    return RunRequest(inputs=["in"], output="out", **options)


def test_one_actor_a_gpu_where_there_are_gpus_else_one_on_the_cpu() -> None:
    with_gpus = choose_resources(request(), {"CPU": 16, "GPU": 4}, can_grow=False)
    assert (with_gpus.actors, with_gpus.gpus_per_actor) == (4, 1)
    without = choose_resources(request(), {"CPU": 2}, can_grow=False)
    assert (without.actors, without.gpus_per_actor) == (1, 0)
    shared = choose_resources(request(gpus_per_actor=0.5), {"CPU": 16, "GPU": 4}, can_grow=False)
    assert (shared.actors, shared.gpus_per_actor) == (8, 0.5)


@pytest.mark.parametrize("options", [{"gpus_per_actor": 1.0}, {"gpus_per_actor": 1.0, "actors": 2}])
def test_gpus_that_are_not_there_are_refused(options: dict) -> None:
    with pytest.raises(SettingError, match="need .* GPUs; the cluster has 0 now"):
        choose_resources(request(**options), {"CPU": 2}, can_grow=False)


def test_a_cluster_that_grows_is_believed_when_both_numbers_are_given() -> None:
    resources = choose_resources(request(actors=16, gpus_per_actor=1.0), {"CPU": 0}, can_grow=True)
    assert (resources.actors, resources.gpus_per_actor) == (16, 1)
    assert resources.cpus_per_actor == 1 and resources.cpus_per_task == 0.5
    with pytest.raises(SettingError, match="--actors and --num-gpus-per-actor"):
        choose_resources(request(gpus_per_actor=1.0), {"CPU": 8}, can_grow=True)


def test_the_time_limit_of_a_chunk_reaches_the_workers() -> None:
    options = estimate.parse(["--input", "in", "--output", "out", "--chunk-timeout", "90"])
    assert choose_resources(_cli.request_of(options), {"CPU": 2}, can_grow=False).chunk_timeout_s == 90


@pytest.mark.parametrize(("text", "shown"), [("1:8", "1 to 8 x 0.5 GPU"), ("4", "4 x 0.5 GPU"), ("8:8", "8 x 0.5 GPU")])
def test_a_range_of_actors_needs_room_for_the_fewest(text: str, shown: str) -> None:
    options = estimate.parse(["--input", "in", "--output", "out", "--actors", text, "--num-gpus-per-actor", "0.5"])
    asked = _cli.request_of(options)
    resources = choose_resources(asked, {"CPU": 16, "GPU": 4}, can_grow=False)
    assert describe(resources) == shown
    if resources.fewest_actors == 1:
        assert choose_resources(asked, {"CPU": 16, "GPU": 0.5}, can_grow=False).actors == 8


@pytest.mark.parametrize("text", ["0", "8:1", "1:", "many", "1:2:3"])
def test_a_range_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        estimate.parse(["--input", "in", "--output", "out", "--actors", text])
    assert "expected N or MIN:MAX" in capsys.readouterr().err


def test_engines_share_each_gpu() -> None:
    engines = {"a": ActorRequest(), "b": ActorRequest(actors=3), "c": ActorRequest(gpus_per_actor=0.0)}
    resources = choose_resources(request(engines=engines), {"CPU": 16, "GPU": 4}, can_grow=False)
    pools = {name: (resources.of(name).actors, resources.of(name).gpus_per_actor) for name in engines}
    assert pools == {"a": (4, 0.5), "b": (3, 0.5), "c": (1, 0)}
    assert (resources.actors, resources.gpus, resources.of("a").cpus_per_actor) == (8, 3.5, 1.0)
    assert describe(resources) == "a: 4 x 0.5 GPU, b: 3 x 0.5 GPU, c: 1 x CPU"
    on_cpus = choose_resources(request(engines=engines), {"CPU": 2}, can_grow=False)
    assert (on_cpus.actors, on_cpus.gpus, on_cpus.of("b").cpus_per_actor) == (5, 0, 0.2)
    thirds = {name: ActorRequest() for name in "abc"}
    assert choose_resources(request(engines=thirds), {"CPU": 8, "GPU": 1}, can_grow=False).gpus == pytest.approx(1)


def test_engines_that_have_no_room_are_refused() -> None:
    engines = {"a": ActorRequest(gpus_per_actor=0.75), "b": ActorRequest()}
    with pytest.raises(SettingError, match=r"2 actors of 0.75 and 0.5 GPUs need 1.25 GPUs; the cluster has 1 now"):
        choose_resources(request(engines=engines), {"CPU": 8, "GPU": 1}, can_grow=False)
