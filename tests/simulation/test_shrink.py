import pytest

from tests.simulation import planted
from tests.simulation.__main__ import main
from tests.simulation.campaign import Kind, play_seed
from tests.simulation.features import make_scenario, parse
from tests.simulation.shrink import Case, Shrinker, smallest
from tests.simulation.trace import short, story


def test_the_smallest_part_for_which_a_condition_holds() -> None:
    tries: list[list[int]] = []

    def holds(left: list[int]) -> bool:
        tries.append(left)
        return {3, 17} <= set(left)

    assert smallest(list(range(40)), holds) == [3, 17]
    assert len(tries) < 60


def test_items_that_do_not_matter_are_removed() -> None:
    assert smallest(list(range(10)), lambda left: True) == []


def shrunk(features: str, form: str, number: int) -> tuple[Case, Case]:
    kind = Kind(features=features, form=form)
    scenario = make_scenario(kind.seed(number), parse(features), form)
    before = Case(scenario=scenario, played=play_seed(kind, number))
    assert before.played.broken
    return before, Shrinker(scenario, before.played, most_plays=400).shrink()


def test_a_broken_schedule_becomes_small_and_stays_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    planted._overlaps_count_twice(monkeypatch)
    number = next(number for number in range(50) if play_seed(Kind(features="flaky+same", form="tar"), number).broken)
    before, after = shrunk("flaky+same", "tar", number)
    assert set(after.played.broken) & set(before.played.broken)
    assert after.scenario.size < before.scenario.size
    assert 0 < len(after.decisions) < len(before.decisions) / 3
    told, told_before = (list(story(each.scenario, each.played)) for each in (after, before))
    assert any(line.startswith("broken  ") for line in told) and any("begins" in line for line in told)
    assert len(told) < min(200, len(told_before)), "the four runs that could not heal it are a hundred of them"


def test_the_command_prints_the_shrunk_schedule_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted._files_are_not_looked_at(monkeypatch)
    words = ["--features", "hand-deletion", "--form", "tar", "--processes", "1"]
    assert main([*words, "--seeds", "5"]) == 1
    said = capsys.readouterr().out
    assert "first seed" in said and "user     deletes      out/" in said
    again = said.split("again:  python -m tests.simulation ")[1].split()
    assert main([*again, "--processes", "1"]) == 1


def test_the_exit_code_is_0_if_nothing_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "4", "--features", "same,kill", "--form", "tar", "--processes", "2"]) == 0
    assert "8 schedules in" in capsys.readouterr().out


def test_names_are_shortened_but_stay_distinct() -> None:
    name = "a-67a66f5a03bd2741-e6bf4e7f5d5e38ba-0000004-0000007-26ad348d63797580-e3b0c44298fc1c14.ok3.bad0"
    assert short(f"sim://bucket/out/_chunks/done/{name}") == "out/done/a[4:7] content e6b outcome e3b.ok3.bad0"
