"""Simulated workers behave like those of Ray: they die, are replaced and lose results, and the real ledger reacts."""

from tests.simulation.census import rows
from tests.simulation.chance import Chance, Place
from tests.simulation.commands import Run, Spec
from tests.simulation.executor import FAILED_CHUNKS_ALLOWED
from tests.simulation.play import OUTPUT, Stage
from tests.simulation.scenario import Round, Scenario

SPEC = Spec(name="A", workers=1, chunk_size=2, restarts=0)


def played(*keys: str, decisions: dict[Place, str] | None = None, spec: Spec = SPEC) -> tuple[Stage, Run]:
    """Run one command alone on a tar of these keys."""
    samples = tuple((key, 0) for key in keys)
    scenario = Scenario(form="tar", shards=(("a", samples),), rounds=(Round(commands=(spec,)),))
    stage = Stage(scenario, Chance(decisions=decisions or {}))
    (command,) = stage.run(scenario.rounds[0].commands)
    return stage, command.runs[-1]


def keys(stage: Stage, folder: str) -> list[str]:
    return sorted(row["key"] for row in rows(dict(stage.world.objects), OUTPUT, folder))


def point(stage: Stage, who: str, what: str) -> Place:
    """Return the first point at which a thread performs an operation."""
    return next(place for place, at, _ in stage.world.points if place.who == who and at == what)


def test_every_sample_is_published() -> None:
    stage, run = played("a", "b", "c", "x")
    assert run.code == 0
    assert (keys(stage, "data"), keys(stage, "errors")) == (["a", "b", "c"], ["x"])


def test_a_stage_whose_worker_dies_is_done_by_another_process() -> None:
    calm, _ = played("a", "b", "c")
    stage, run = played("a", "b", "c", decisions={point(calm, "A.1", "compute"): "die"})
    assert run.code == 0 and keys(stage, "data") == ["a", "b", "c"]
    assert {place.who for place, _, _ in stage.world.points} == {"A", "A.1", "A.2"}


def test_a_sample_that_kills_its_process_becomes_an_error() -> None:
    stage, run = played("a", "k", "c")
    assert run.code == 0
    assert (keys(stage, "data"), keys(stage, "errors")) == (["a", "c"], ["k"])
    (row,) = rows(dict(stage.world.objects), OUTPUT, "errors")
    assert "died on this sample" in row["reason"]


def test_a_result_that_is_lost_is_made_again() -> None:
    calm, _ = played("a", "b")
    last = max(place.number for place, _, _ in calm.world.points if place.who == "A.1")
    stage, run = played("a", "b", decisions={Place("A.1", last + 1, "result"): "again"})
    assert run.code == 0 and keys(stage, "data") == ["a", "b"]
    assert sum(step.what == "put" and "/data/" in step.uri for step in stage.world.trace) == 2


def test_a_storage_that_fails_fails_its_chunk_alone() -> None:
    calm, _ = played("a", "b", "c", "d")
    stage, run = played("a", "b", "c", "d", decisions={point(calm, "A.1", "put"): "fail"})
    assert run.code == 1 and keys(stage, "data") == ["c", "d"]
    assert any("a chunk failed: StorageError" in text for text in run.said)


def test_too_many_failed_chunks_stop_the_run() -> None:
    names = [f"{number:02d}" for number in range(2 * FAILED_CHUNKS_ALLOWED + 6)]
    failing: dict[Place, str] = {}
    for _ in range(FAILED_CHUNKS_ALLOWED + 1):
        before, run = played(*names, decisions=failing)
        assert run.code == (1 if failing else 0)
        first = next(
            place
            for place, what, _ in before.world.points
            if what == "put" and "." in place.who and place not in failing
        )
        failing[first] = "fail"
    stage, run = played(*names, decisions=failing)
    assert run.code == 1 and keys(stage, "data") == []
    assert any("stopped: StorageError" in text for text in run.said)


def test_a_killed_command_takes_its_workers_with_it_unless_they_are_spared() -> None:
    calm, _ = played("a", "b")
    for how, published in (("kill A", []), ("kill A zombies", ["a", "b"])):
        stage, run = played("a", "b", decisions={point(calm, "A.1", "compute"): how})
        assert run.code == "killed" and keys(stage, "data") == published
