"""The roles of the columns of a Parquet shard, by names, paths into nested columns, and types.

Tested in tests/pipelines/readers/test_parquet.py and test_misfits.py.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import MisfitError, clipped
from pipelines.readers.fields import CAPTION_FIELDS, KEY_FIELDS
from pipelines.readers.parquet_values import is_binary, is_byte_list, is_list, is_text, plain_type
from pipelines.readers.references import URI_FIELDS
from pipelines.samples import Columns

KEY_NAMES = KEY_FIELDS
CAPTION_NAMES = (*CAPTION_FIELDS, "txt")


@dataclass(frozen=True, kw_only=True)
class ParquetColumns:
    """The columns of one shard by role; `a.b` and `a.0` are paths into structs, maps and lists."""

    image: str
    key: str | None
    caption: str | None
    media: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    is_caption_named: bool = True
    """Whether the user has named the caption column."""


def choose_columns(schema: pa.Schema, columns: Columns, uri: str) -> ParquetColumns:
    """Choose the columns by name or, for those without a name, by the usual names and types.

    An image is binary, a struct of bytes and path, or a text with its URI or its bytes in base64. If no column is
    named, it is `image`, the only column of bytes, or the first text column with one of the names of URI_FIELDS.

    Raises:
        MisfitError: a named column is missing or of the wrong type, a needed name belongs to two columns, or the image
            column is ambiguous.
    """
    named = [("--image-column", columns.image), ("--key-column", columns.key), ("--caption-column", columns.caption)]
    for option, path in [*named, *(("column", path) for path in (*columns.media, *columns.fields))]:
        check_named(schema, option, path, uri)
    image = columns.image or _image_column(schema, uri)
    for option, path in [("--image-column", image), *(("column", path) for path in columns.media)]:
        check_image_type(schema, option, path, uri)
    key = columns.key or next((name for name in KEY_NAMES if name in schema.names), None)
    caption = columns.caption or next((name for name in _caption_columns(schema) if name != image), None)
    for option, path in [("--image-column", image), ("--key-column", key), ("--caption-column", caption)]:
        if path is not None:
            check_single(schema, option, path, uri)
    is_named = columns.caption is not None
    return ParquetColumns(
        image=image,
        key=key,
        caption=caption,
        media=columns.media,
        fields=columns.fields,
        is_caption_named=is_named,
    )


def check_named(schema: pa.Schema, option: str, path: str | None, uri: str) -> None:
    """Raise MisfitError if a path is given that does not exist or belongs to two columns of the same name."""
    if path is None:
        return
    check_single(schema, option, path, uri)
    if type_at(schema, path) is None:
        raise MisfitError(f"{option} {path!r} is not in {uri}. Its columns: {listed(schema.names)}.")


def check_single(schema: pa.Schema, option: str, path: str, uri: str) -> None:
    """Raise MisfitError if a path belongs to two columns of the same name."""
    name = path if path in schema.names else path.split(".", 1)[0]
    count = len(schema.get_all_field_indices(name))
    if count > 1:
        what = option if option == "column" else f"{option}: column"
        raise MisfitError(
            f"{what} {name!r} is ambiguous: {uri} has {count} columns of this name. Rename one of them, or name "
            f"another column. Its columns: {listed(schema.names)}."
        )


def check_image_type(schema: pa.Schema, option: str, path: str, uri: str) -> None:
    """Raise MisfitError if images cannot be read from a column."""
    kind = type_at(schema, path)
    if kind is None or not _may_be_image(kind):
        fit = [field.name for field in schema if _holds_bytes(field.type)]
        fit += [name for name in URI_FIELDS if name in schema.names and is_text(_type_of(schema, name))]
        hint = f" (name one element of a list: {path}.0)" if kind is not None and is_list(kind) else ""
        raise MisfitError(
            f"{option} {path!r} of {uri} has type {clipped(str(kind))}; images are binary, struct<bytes, path>, or "
            f"text: their URI or base64{hint}. Columns that fit: {listed(fit)}."
        )


def listed(names: Iterable[str]) -> str:
    """Return the names of columns or fields for a message."""
    return clipped(", ".join(map(str, names))) or "none"


def type_at(schema: pa.Schema, path: str) -> pa.DataType | None:
    """Return the type at a path, or None if the path does not exist."""
    steps = _steps(schema, path)
    return steps[-1][1] if steps else None


def stored_path(schema: pa.Schema, path: str) -> str:
    """Return the part of a path that Parquet can read by itself: up to the first list or map."""
    steps = _steps(schema, path) or []
    names = []
    for name, kind in steps:
        names.append(name)
        if is_list(kind) or pa.types.is_map(kind):
            break
    return ".".join(names)


def _steps(schema: pa.Schema, path: str) -> list[tuple[str, pa.DataType]] | None:
    """Return (name, type) of every step of a path; a column whose own name has dots is one step."""
    if path in schema.names:
        return [(path, _type_of(schema, path))]
    first, *rest = path.split(".")
    if first not in schema.names:
        return None
    steps = [(first, _type_of(schema, first))]
    for name in rest:
        kind = plain_type(steps[-1][1])
        if pa.types.is_struct(kind) and kind.get_field_index(name) >= 0:
            steps.append((name, kind.field(name).type))
        elif is_list(kind) and name.isdecimal():
            steps.append((name, kind.value_type))
        elif pa.types.is_map(kind) and is_text(kind.key_type):
            steps.append((name, kind.item_type))
        else:
            return None
    return steps


def _image_column(schema: pa.Schema, uri: str) -> str:
    """Return the one column that can be the image."""
    names = list(dict.fromkeys(schema.names))
    with_bytes = [name for name in names if _holds_bytes(_type_of(schema, name))]
    with_uris = [name for name in URI_FIELDS if name in names and is_text(_type_of(schema, name))]
    unusual = [name for name in URI_FIELDS if name in names and _may_be_image(_type_of(schema, name))]
    found = _only_image(with_bytes, with_uris) or (None if with_bytes else next(iter(unusual), None))
    if found is None:
        raise MisfitError(
            f"{uri} has {len(with_bytes)} columns that can hold images ({listed(with_bytes)}); exactly one is "
            f"needed, or one called image. Name it with --image-column. Its columns: {listed(schema.names)}."
        )
    return found


def _only_image(with_bytes: list[str], with_uris: list[str]) -> str | None:
    if "image" in with_bytes or not with_bytes:
        return next(iter([name for name in with_bytes if name == "image"] + with_uris), None)
    return with_bytes[0] if len(with_bytes) == 1 else None


def _caption_columns(schema: pa.Schema) -> list[str]:
    """Return the columns with a usual name, also in capitals: texts, then bytes and lists of text, then others.

    The values of the others are not captions; the note of each row says so.
    """
    spelled = {name.lower(): name for name in reversed(schema.names)}
    names = [name if name in schema.names else spelled[name] for name in CAPTION_NAMES if name in spelled]
    texts = [name for name in names if is_text(_type_of(schema, name))]
    lists = [name for name in names if _may_be_caption(_type_of(schema, name))]
    others = [name for name in names if schema.names.count(name) == 1]
    return list(dict.fromkeys([*texts, *lists, *others]))


def _type_of(schema: pa.Schema, name: str) -> pa.DataType:
    """Return the type of the first column with a name."""
    return schema.field(schema.names.index(name)).type


def _holds_bytes(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and is_binary(field.type) for field in kind)
    return is_binary(kind)


def _may_be_image(kind: pa.DataType) -> bool:
    """Return whether images can be read from a named column; null is the type in a file without any images."""
    if kind == pa.uuid():
        return False
    kind = plain_type(kind)
    if pa.types.is_struct(kind):
        return any(field.name in ("bytes", "path") and _may_be_image(field.type) for field in kind)
    return (
        is_binary(kind)
        or is_text(kind)
        or is_byte_list(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_null(kind)
    )


def _may_be_caption(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    return is_binary(kind) or (is_list(kind) and (is_text(kind.value_type) or is_binary(kind.value_type)))
