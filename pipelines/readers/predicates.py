"""Predicates on Parquet columns, such as `width>=512`, and the row groups that cannot match them.

Tested in tests/pipelines/readers/test_parquet.py.
"""
# pyright: reportAttributeAccessIssue=false
# pyarrow.compute defines its functions when it is imported.

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import MisfitError, SettingError, clipped
from pipelines.readers.parquet_columns import check_single, listed, stored_path, type_at
from pipelines.readers.parquet_values import is_text, plain_column

FORM = re.compile(r"\s*(?P<column>[^<>=!]+?)\s*(?P<sign>>=|<=|==|!=|=|>|<)\s*(?P<value>.*?)\s*")
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    ">": pc.greater,
    "<": pc.less,
}
MAY_HOLD: dict[str, Callable[[Any, Any, Any], bool]] = {
    ">=": lambda least, most, value: most >= value,
    "<=": lambda least, most, value: least <= value,
    "==": lambda least, most, value: least <= value <= most,
    "!=": lambda least, most, value: not least == value == most,
    ">": lambda least, most, value: most > value,
    "<": lambda least, most, value: least < value,
}
"""Whether a row group can match, by its smallest and largest value."""


@dataclass(frozen=True, kw_only=True)
class Predicate:
    """A comparison `column sign value`, which no null matches."""

    column: str
    """Name of the column; `a.b` is a path into a struct."""
    sign: str
    value: Any

    def matches(self, table: pa.RecordBatch) -> np.ndarray:
        """Return which rows of a batch match, as bool (rows,)."""
        first, *rest = [self.column] if self.column in table.schema.names else self.column.split(".")
        column = table.column(first)
        for name in rest:
            column = pc.struct_field(column, name)
        return pc.fill_null(COMPARE[self.sign](plain_column(column), self.value), False).to_numpy(zero_copy_only=False)

    def may_hold(self, least: Any, most: Any) -> bool:
        """Return False if the smallest and the largest value of some rows show that none of them matches."""
        try:
            return bool(MAY_HOLD[self.sign](least, most, self.value))
        except TypeError:  # not comparable, such as a text with a number
            return True


def parse_predicates(texts: Sequence[str], schema: pa.Schema, uri: str) -> list[Predicate]:
    """Parse predicates for the columns of a shard.

    Raises:
        SettingError: a text cannot be parsed.
        MisfitError: there is no such column, or the value does not have the column's type.
    """
    return [_predicate(text, schema, uri) for text in texts]


def _predicate(text: str, schema: pa.Schema, uri: str) -> Predicate:
    match = FORM.fullmatch(text)
    if match is None:
        raise SettingError(
            f"--where {text!r} is not a condition. Rule: COLUMN SIGN VALUE, as in width>=512 or lang=en."
        )
    check_single(schema, f"--where {text!r}", match["column"], uri)
    kind = type_at(schema, match["column"])
    if kind is None or stored_path(schema, match["column"]) != match["column"]:
        raise MisfitError(f"--where {text!r}: {uri} has no such column. Its columns: {listed(schema.names)}.")
    try:
        value = json.loads(match["value"])
    except (ValueError, RecursionError):
        value = match["value"]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and is_text(kind):
        value = match["value"]
    predicate = Predicate(column=match["column"], sign={"=": "=="}.get(match["sign"], match["sign"]), value=value)
    try:
        COMPARE[predicate.sign](plain_column(pa.array([], kind)), value)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise MisfitError(
            f"--where {text!r}: column {predicate.column} of {uri} has type {kind}: {clipped(str(error))}"
        ) from error
    return predicate
