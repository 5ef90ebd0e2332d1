"""Conditions on the columns of a row, such as `width >= 512 and not label == "sketch"`.

The syntax is that of Python: comparisons (also `in`), `and`, `or`, `not`, parentheses, numbers, texts, and names of
columns, where `a.b` is a path into an object. Nothing else is allowed, and nothing is executed: Python only parses the
text. No comparison holds for a column that is null or absent.

Tested in tests/pipelines/tasks/test_expressions.py.
"""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from pipelines.errors import SettingError, clipped

COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, group: value in group,
    ast.NotIn: lambda value, group: value not in group,
}
MAX_CHARS = 4000
RULE = (
    "Rule: comparisons of columns with numbers and texts, joined by and, or, not, as in 'width >= 512 and "
    "caption_words > 2'"
)


@dataclass(frozen=True)
class Expression:
    """A condition on the columns of a row."""

    text: str
    option: str = "--keep"
    """The option that it comes from, for messages."""

    def __post_init__(self) -> None:
        """Raise SettingError if the text is no such condition."""
        try:
            _check(_parsed(self.text))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise SettingError(f"{self.option} {clipped(self.text)!r}: {clipped(reason)}. {RULE}.") from None

    @property
    def names(self) -> frozenset[str]:
        """The columns that are compared."""
        return frozenset(_columns(_parsed(self.text)))

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row meets the condition. Raises TypeError for values that cannot be compared."""
        return bool(_value(_parsed(self.text), row))


@cache
def _parsed(text: str) -> ast.expr:
    if len(text) > MAX_CHARS:
        raise ValueError(f"it has {len(text)} characters, more than {MAX_CHARS}")
    return ast.parse(text.strip(), mode="eval").body


def _check(node: ast.expr) -> None:
    """Raise ValueError for anything but conditions."""
    if isinstance(node, ast.BoolOp):
        for each in node.values:
            _check(each)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check(node.operand)
    elif isinstance(node, ast.Compare):
        wrong = [each for each in (node.left, *node.comparators) if not _is_operand(each)]
        operators = [type(each).__name__ for each in node.ops if type(each) not in COMPARE]
        if wrong or operators:
            raise ValueError(f"{ast.unparse(wrong[0]) if wrong else operators[0]} cannot be compared")
    elif not _column(node):
        raise ValueError(f"{ast.unparse(node)} is not a condition")


def _is_operand(node: ast.expr) -> bool:
    """Return whether a node is a number, a text, true, false, a column, or a list of such constants."""
    if isinstance(node, ast.Tuple | ast.List):
        return all(_is_operand(each) and not _column(each) for each in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    return bool(_column(node)) or (isinstance(node, ast.Constant) and type(node.value) in (int, float, str, bool))


def _column(node: ast.AST) -> str:
    """Return the column that a node names; empty if it is something else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (above := _column(node.value)):
        return f"{above}.{node.attr}"
    return ""


def _columns(node: ast.AST) -> Iterator[str]:
    if name := _column(node):
        yield name
        return
    for child in ast.iter_child_nodes(node):
        yield from _columns(child)


def _value(node: ast.expr, row: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.BoolOp):
        values = (_value(each, row) for each in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, row)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.Compare):
        values = [_value(each, row) for each in (node.left, *node.comparators)]
        return all(_holds(sign, *pair) for sign, pair in zip(node.ops, pairwise(values), strict=True))
    if isinstance(node, ast.Tuple | ast.List):
        return [_value(each, row) for each in node.elts]
    return node.value if isinstance(node, ast.Constant) else row.get(_column(node))


def _holds(sign: ast.cmpop, left: Any, right: Any) -> bool:
    return left is not None and right is not None and bool(COMPARE[type(sign)](left, right))
