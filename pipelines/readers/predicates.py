"""Conditions on Parquet columns, such as `width>=512`, and the row groups that cannot meet them."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import MisfitError, SettingError
from pipelines.readers.parquet_columns import check_single, listed, stored_path, type_at
from pipelines.readers.parquet_values import is_text, plain_column
from pipelines.texts import clipped

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
"""By the least and the most value of a row group."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """`column sign value`; a null meets none."""

    column: str
    """May lead into structs: `a.b`."""
    sign: str
    value: Any

    def met(self, table: pa.RecordBatch) -> np.ndarray:
        """bool (rows,): which rows of a batch meet the condition."""
        first, *rest = [self.column] if self.column in table.schema.names else self.column.split(".")
        column = table.column(first)
        for name in rest:
            column = pc.struct_field(column, name)
        return pc.fill_null(COMPARE[self.sign](plain_column(column), self.value), False).to_numpy(zero_copy_only=False)

    def may_hold(self, least: Any, most: Any) -> bool:
        """False where the least and the most value of some rows rule the condition out for all of them."""
        try:
            return bool(MAY_HOLD[self.sign](least, most, self.value))
        except TypeError:  # not to be compared, as a text with a number
            return True


def parse_conditions(texts: Sequence[str], schema: pa.Schema, uri: str) -> list[Condition]:
    """The conditions, fit for a shard's columns.

    Raises:
        SettingError: a text that is no condition.
        MisfitError: no such column, or a value of another type than the column's.
    """
    return [_condition(text, schema, uri) for text in texts]


def _condition(text: str, schema: pa.Schema, uri: str) -> Condition:
    match = FORM.fullmatch(text)
    if match is None:
        raise SettingError(f"--where {text!r} is no condition. Rule: COLUMN SIGN VALUE, as in width>=512 or lang=en.")
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
    condition = Condition(column=match["column"], sign={"=": "=="}.get(match["sign"], match["sign"]), value=value)
    try:
        COMPARE[condition.sign](plain_column(pa.array([], kind)), value)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise MisfitError(
            f"--where {text!r}: column {condition.column} of {uri} has type {kind}: {clipped(str(error))}"
        ) from error
    return condition
