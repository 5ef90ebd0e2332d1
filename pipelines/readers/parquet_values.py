"""Conversion of Arrow values to Python values, one at a time, so that a bad value affects no other value.

Texts that are not UTF-8 are decoded as Python decodes file names: a byte that is not text becomes a lone surrogate
(`surrogateescape`). Nothing is lost, and every reader decides what to do with it.

Tested in tests/pipelines/readers/test_odd_values.py.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipelines.errors import SampleError, printable
from pipelines.storage.damage import is_damage, reason_of

NOT_NAMES = (list, tuple, dict)


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is a list of any layout."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is text of any layout, also in a dictionary or an extension type."""
    kind = plain_type(kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Return whether a type is bytes of variable size and any layout, also in a dictionary or an extension type."""
    kind = plain_type(kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_byte_list(kind: pa.DataType) -> bool:
    """Return whether a type is a list of 8-bit integers, as programs without a type for bytes write them."""
    return is_list(kind) and kind.value_type in (pa.uint8(), pa.int8())


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values inside dictionaries and extension types."""
    while True:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def values_at(batch: pa.RecordBatch, path: str, rows: Sequence[int]) -> Iterator[Any]:
    """Yield the values at a path in some rows of a batch; a SampleError stands for one that cannot be read."""
    column, steps = _first_column(batch, path)
    for row in rows:
        try:
            yield None if column is None else _value_below(column[row], steps)
        except Exception as error:
            if not is_damage(error):
                raise
            yield SampleError("read", f"the value of column {path} cannot be read: {reason_of(error)}")


def value_of(scalar: pa.Scalar) -> Any:
    """Return the Python value of a scalar of any type; bytes that are not UTF-8 become lone surrogates in texts."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_dictionary(kind) or (isinstance(kind, pa.BaseExtensionType) and kind != pa.uuid()):
        return value_of(scalar.value)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    if pa.types.is_struct(kind):
        return {kind.field(at).name: value_of(scalar[at]) for at in range(kind.num_fields)}
    if pa.types.is_map(kind):
        return {_map_key(value_of(entry[0])): value_of(entry[1]) for entry in scalar.values}
    if is_byte_list(kind) and scalar.values.null_count == 0:
        return scalar.values.to_numpy().tobytes()
    if is_list(kind):
        return [value_of(element) for element in scalar.values]
    return _plain_value(scalar)


def key_text(value: Any) -> str | None:
    """Return a value as the key of a sample, or None for null and NaN.

    Bytes become the text that they hold, otherwise hexadecimal digits.

    Raises:
        ValueError: the value is a list or an object.
    """
    if isinstance(value, str):
        return printable(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bytes):
        return _bytes_text(value)
    if isinstance(value, NOT_NAMES):
        what = "an object" if isinstance(value, dict) else "a list"
        raise ValueError(f"a key is one text or number, this one is {what}")
    return printable(str(value))


def key_texts(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column in which values are equal if `key_text` gives them the same key, and null if it gives none.

    Columns of text and integers cost nothing; only values of other types are converted one by one.
    """
    kind = keys.type
    if kind == pa.uuid() or (isinstance(kind, pa.BaseExtensionType) and is_text(kind)):
        keys = pa.chunked_array([chunk.storage for chunk in keys.chunks], kind.storage_type)
        return keys if kind == pa.uuid() else key_texts(keys)
    if pa.types.is_dictionary(kind) and is_text(kind):
        keys = keys.cast(pa.large_binary()).cast(pa.large_string(), safe=False)
    elif pa.types.is_string_view(kind):
        keys = keys.cast(pa.large_string())
    if pa.types.is_integer(kind) or pa.types.is_null(kind) or (is_text(keys.type) and _is_sound(keys)):
        return keys
    if is_binary(keys.type):
        texts = [None if value is None else _bytes_text(value) for value in keys.to_pylist()]
    else:
        texts = [_text_or_none(scalar) for chunk in keys.chunks for scalar in chunk]
    return pa.chunked_array([texts], pa.large_string())


def plain_column(column: pa.Array) -> pa.Array:
    """Return the column without dictionaries and views, which not every Arrow function accepts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain_column(column.dictionary_decode())
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(kind) else column


def _first_column(batch: pa.RecordBatch, path: str) -> tuple[pa.Array | None, list[str]]:
    """Return the column at which a path starts, and the remaining steps."""
    first, *rest = [path] if path in batch.schema.names else path.split(".")
    at = batch.schema.get_field_index(first)
    return (None if at < 0 else batch.column(at)), rest


def _value_below(scalar: pa.Scalar, steps: Sequence[str]) -> Any:
    for step in steps:
        while scalar.is_valid and isinstance(scalar.type, pa.BaseExtensionType):
            scalar = scalar.value
        if not scalar.is_valid:
            return None
        if pa.types.is_struct(scalar.type):
            scalar = scalar[step]
        elif is_list(scalar.type) and step.isdecimal() and int(step) < len(scalar.values):
            scalar = scalar.values[int(step)]
        elif pa.types.is_map(scalar.type):
            scalar = next((entry[1] for entry in scalar.values if value_of(entry[0]) == step), pa.scalar(None))
        else:
            return None
    return value_of(scalar)


def _plain_value(scalar: pa.Scalar) -> Any:
    """Return the Python value, or Arrow's text for values that Python lacks, such as times in the year 10000.

    Raises:
        ValueError: the scalar is out of the range of its type.
    """
    if scalar.type == pa.time64("ns") and scalar.value % 1000:
        return scalar.cast(pa.string()).as_py()
    try:
        return scalar.as_py()
    except Exception as error:
        if not is_damage(error):
            raise
        text = scalar.cast(pa.string()).as_py()
        if text.startswith("<value out of range"):
            raise ValueError(text.strip("<>")) from error
        return text


def _map_key(value: Any) -> Any:
    return value if isinstance(value, (str, bytes, int, float, bool)) else str(value)


def _bytes_text(content: bytes) -> str:
    """Return bytes as text, without the zeros that pad a fixed size, or as hexadecimal digits."""
    try:
        text = content.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        return content.hex()
    return text if text and text.isprintable() else content.hex()


def _is_sound(texts: pa.ChunkedArray) -> bool:
    """Return whether all texts are valid UTF-8."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _text_or_none(scalar: pa.Scalar) -> str | None:
    try:
        return key_text(value_of(scalar))
    except Exception as error:
        if not is_damage(error):
            raise
        return None
