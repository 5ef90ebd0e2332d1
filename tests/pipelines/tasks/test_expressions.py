"""Conditions on columns: what they mean, and everything else is refused."""

import pickle

import pytest

from pipelines.errors import SettingError
from pipelines.tasks.expressions import MAX_CHARS, Expression

ROW = {"width": 600, "caption": "a red boat", "label": "cat", "score": None, "info.size": 3, "good": True}


@pytest.mark.parametrize(
    ("text", "holds", "names"),
    [
        ("width >= 512 and label == 'cat'", True, {"width", "label"}),
        ("500 < width <= 600", True, {"width"}),
        ("width < 512 or not label != 'cat'", True, {"width", "label"}),
        ("'boat' in caption and label not in ('dog', 'cow')", True, {"caption", "label"}),
        ("info.size == 3", True, {"info.size"}),
        ("good and width > -1.5", True, {"good", "width"}),
        ("score > 3", False, {"score"}),
        ("not score > 3", True, {"score"}),
        ("score == score or absent == absent", False, {"score", "absent"}),
        ("label == 3", False, {"label"}),
    ],
)
def test_conditions(text: str, holds: bool, names: set[str]) -> None:
    expression = pickle.loads(pickle.dumps(Expression(text)))
    assert expression.holds(ROW) is holds
    assert expression.names == names


@pytest.mark.parametrize(
    "text",
    [
        "width = 3", "width >", "", "3", "'text'", "width + 1 > 3", "width[0] > 1", "f'{width}' == '3'",
        "__import__('os').system('true')", "(lambda: 1)() == 1", "1 if good else 2", "width is None", "[x for x in y]",
        "good; good", "x < 'a\0'", "(" * 500 + "x" + ")" * 500, "x" * (MAX_CHARS + 1), "label in (other, 'a')",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"^--keep .* Rule: comparisons of columns"):
        Expression(text)


def test_values_that_cannot_be_compared_raise() -> None:
    with pytest.raises(TypeError):
        Expression("label > 3").holds(ROW)
