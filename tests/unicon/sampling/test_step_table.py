from __future__ import annotations

import json

import pytest

from tests.unicon.test_golden import GOLDEN, case_names
from unicon.sampling import step_table
from unicon.sampling.step_table import StepTable


@pytest.mark.parametrize("name", case_names("sampling"))
def test_builders_give_the_golden_tables(name: str) -> None:
    case = json.loads((GOLDEN / "sampling" / f"{name}.json").read_text())
    (segment,) = case["segments"]
    paths = [step_table.path(case["steps"], start) for start, _ in segment[:-1]]
    assert step_table.from_paths(paths, case["steps"]).indices == tuple(tuple(row[:-1]) for row in case["step_table"])


def test_named_builders() -> None:
    assert step_table.estimation(3).indices == ((2, 0), (2, 1), (2, 2))
    assert step_table.estimation(3, clean_image=True).indices == ((3, 0), (3, 1), (3, 2))
    assert step_table.synthesis(3, 2).indices == ((0, 2, 2), (1, 2, 2), (2, 2, 2))
    assert step_table.synthesis(2, 2, clean_conditions=True).indices == ((0, 2, 2), (1, 2, 2))
    assert step_table.joint(2).indices == ((0, 0), (1, 1))
    assert step_table.completion(2, num_given=1, num_generated=1).indices == ((0, 2, 0), (1, 2, 1))
    assert step_table.completion(1).indices == ((0,),)
    assert step_table.coarse(10, 0.7).path(1) == (2, 2, 3, 4, 5, 6, 6, 7, 8, 9)


def test_advances() -> None:
    table = step_table.estimation(3, clean_image=True)
    assert [table.advances(iteration, 1) for iteration in range(3)] == [True, True, True]
    assert not any(table.advances(iteration, 0) for iteration in range(3))
    assert table.is_clean(0) and not table.is_clean(1)
    last_index = step_table.estimation(3)
    assert [last_index.advances(iteration, 0) for iteration in range(3)] == [False, False, True]


@pytest.mark.parametrize("indices", [(), ((0, 1), (0,)), ((3,),), ((-1,),), ((1,), (0,)), ((0,), (2,))])
def test_wrong_tables_are_refused(indices: tuple) -> None:
    with pytest.raises(ValueError):
        StepTable(indices, 2)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        step_table.joint(0)


def test_wrong_strength_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0"):
        step_table.coarse(10, 1.5)
