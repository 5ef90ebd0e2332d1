"""Parts of a set by the values of a column; words are in tests/jobs/test_evaluate_maps.py."""

from collections.abc import Sequence
from typing import Any

import pytest

from pipelines.errors import SettingError
from pipelines.evaluation.accuracy import Evaluation
from pipelines.evaluation.join import Join
from pipelines.evaluation.map_measures import map_measure_of
from pipelines.evaluation.measures import ESTIMATE
from pipelines.evaluation.slices import slices_by_column


def evaluation(values: Sequence[Any]) -> Evaluation:
    """Return an evaluation whose errors are 0, 1, ... and whose column has these values."""
    join = Join(condition="depth", predictions="p", truth="t", labels=("column",), found_labels={"column"})
    scores = [{"abs_rel": float(at), "rmse": 0.0, "delta1": 1.0, "correlation": 1.0} for at in range(len(values))]
    keys = [str(at) for at in range(len(values))]
    return Evaluation(
        measure=map_measure_of("depth"),
        join=join,
        scores={ESTIMATE: scores},
        keys=keys,
        labels={"column": list(values)},
    )


def parts(values: Sequence[Any]) -> dict[str, tuple[int, float]]:
    found = slices_by_column(evaluation(values), "column")
    return {part.value: (part.images, part.numbers["abs_rel"]) for part in found}


def test_few_values_are_parts_of_their_own() -> None:
    assert parts(["a", None, "a", "b"]) == {"a": (2, 1.0), "(no value)": (1, 1.0), "b": (1, 3.0)}
    assert parts([True, False, True, True]) == {"True": (3, pytest.approx(5 / 3)), "False": (1, 1.0)}


def test_rare_values_are_one_part() -> None:
    found = parts([*"aabbccddeeffgghhiijjkkllmmnnooppqqrrsstt", "rare", "rarer"])
    assert len(found) == 21 and found["(other values)"] == (2, 40.5)


def test_many_numbers_become_quarters() -> None:
    found = parts([*range(40), None])
    assert [images for images, _ in found.values()] == [10, 10, 10, 10, 1]
    assert list(found)[0] == "0 to 9.75" and list(found)[-1] == "(no value)"


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(SettingError, match="--slice-by 'place': neither"):
        slices_by_column(evaluation(["a"]), "place")
