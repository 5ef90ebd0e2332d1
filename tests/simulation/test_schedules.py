"""Every feature in a few schedules, and in hundreds in the slow tests."""

import os
import subprocess
import sys

import pytest

from tests.simulation import campaign
from tests.simulation.campaign import Kind, play_seed
from tests.simulation.features import COMBINATIONS, FEATURES, make_scenario, parse
from tests.simulation.play import play
from tests.simulation.shrink import Shrinker
from tests.simulation.trace import story

SEEDS, MANY_SEEDS = 8, 500
KINDS = [(features, form) for features in (*FEATURES, *COMBINATIONS) for form in ("tar", "folder")]
OTHER_KINDS = [(features, "jsonl") for features in FEATURES]


def check(features: str, form: str, seeds: range) -> None:
    kind = Kind(features=features, form=form)
    for number in seeds:
        played = play_seed(kind, number)
        if played.broken:
            scenario = make_scenario(kind.seed(number), parse(features), form)
            case = Shrinker(scenario, played, most_plays=300).shrink()
            command = f"python -m tests.simulation --seeds 1 --first {number} --features {features} --form {form}"
            pytest.fail("\n".join([f"{command}\n", *story(case.scenario, case.played)]), pytrace=False)


@pytest.mark.parametrize(("features", "form"), KINDS)
def test_no_schedule_breaks_an_invariant(features: str, form: str) -> None:
    check(features, form, range(SEEDS))


@pytest.mark.parametrize(("features", "form"), OTHER_KINDS)
def test_no_schedule_over_json_lines_breaks_an_invariant(features: str, form: str) -> None:
    check(features, form, range(SEEDS // 2))


@pytest.mark.slow
@pytest.mark.parametrize(("features", "form"), [*KINDS, *OTHER_KINDS])
def test_none_of_many_schedules_breaks_an_invariant(features: str, form: str) -> None:
    check(features, form, range(SEEDS, SEEDS + MANY_SEEDS))


@pytest.mark.parametrize("features", ["kill+retry", "flaky+torn-disk", "several-shards+zombies", "retry+worker-deaths"])
def test_a_seed_always_gives_the_same_schedule(features: str) -> None:
    kind = Kind(features=features, form="tar")
    for number in range(3):
        first, second = play_seed(kind, number), play_seed(kind, number)
        assert first.trace == second.trace and first.decisions == second.decisions


def test_the_decisions_of_a_schedule_replay_it() -> None:
    kind = Kind(features="change+kill+zombies", form="folder")
    for number in range(5):
        first = play_seed(kind, number)
        scenario = make_scenario(kind.seed(number), parse(kind.features), kind.form)
        assert play(scenario, decisions=first.decisions).trace == first.trace


def test_the_order_of_sets_in_a_process_does_not_matter() -> None:
    code = (
        "from tests.simulation.campaign import Kind, play_seed; import hashlib;"
        "kind = Kind(features='delete+limit+retry+several-shards', form='folder');"
        "print(hashlib.sha256(repr([play_seed(kind, number).trace for number in range(4)]).encode()).hexdigest())"
    )
    said = {
        subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_every_event_happens() -> None:
    """A feature whose event is never drawn would test nothing."""
    wanted = {
        "kill": {"kill"},
        "zombies": {"zombies", "late", "land"},
        "lost-answers": {"after", "late"},
        "outage": {"fail"},
        "worker-deaths": {"die", "again", "start"},
        "torn-disk": {"power"},
        "stale-listing": {"stale"},
        "change": {"act"},
        "flaky": {"yes"},
        "same": {"switch"},
    }
    for features, words in wanted.items():
        number = 0
        while words:
            assert number < 60, f"{features}: never {words}"
            played = play_seed(Kind(features=features, form="tar"), number)
            words -= {word for decision in played.decisions.values() for word in decision.split(" ")}
            number += 1


def test_unknown_features_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown feature kil; there are same, kill"):
        parse("kil+limit")


def test_an_interrupted_campaign_reports_what_was_played(monkeypatch: pytest.MonkeyPatch) -> None:
    played = []

    def play_two(batch: campaign.Batch) -> campaign.Batch:
        if len(played) == 2:
            raise KeyboardInterrupt
        played.append(batch)
        return batch

    monkeypatch.setattr(campaign, "play_batch", play_two)
    (tally,) = campaign.run([Kind(features="kill", form="tar")], first=0, seeds=None, minutes=1, processes=1)
    assert tally.schedules == 2 * campaign.BATCH
