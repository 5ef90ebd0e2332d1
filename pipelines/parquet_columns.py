"""Which column of a Parquet shard is what: names, paths into nested columns, types."""

from dataclasses import dataclass

import pyarrow as pa

from pipelines.errors import SettingError
from pipelines.fields import CAPTION_FIELDS, KEY_FIELDS
from pipelines.references import URI_FIELDS
from pipelines.samples import Columns

KEY_NAMES = KEY_FIELDS
CAPTION_NAMES = (*CAPTION_FIELDS, "txt")


@dataclass(frozen=True, kw_only=True)
class ParquetColumns:
    """The columns of one shard by their role; `a.b` and `a.0` lead into structs and lists."""

    image: str
    key: str | None
    caption: str | None
    media: tuple[str, ...] = ()


def choose_columns(schema: pa.Schema, columns: Columns, uri: str) -> ParquetColumns:
    """The columns by name, or the only ones that can be meant.

    A picture is binary, a struct of bytes and path, or a text: its URI. Without a name it is `image`, the only column
    of bytes, or else the first text column that is called as a URI is.

    Raises:
        SettingError: a named column is missing or of a wrong type, or the image column is not clear.
    """
    options = [("image", columns.image), ("key", columns.key), ("caption", columns.caption)]
    for option, path in [*options, *(("media", path) for path in columns.media)]:
        if path is not None and type_at(schema, path) is None:
            raise SettingError(f"--{option}-column {path!r} is not in {uri}. Its columns: {', '.join(schema.names)}.")
    with_bytes = [field.name for field in schema if _holds_bytes(field.type)]
    with_uris = [name for name in URI_FIELDS if name in schema.names and _is_text(schema.field(name).type)]
    image = columns.image or _only_image(with_bytes, with_uris)
    if image is None:
        raise SettingError(
            f"{uri} has {len(with_bytes)} columns that can hold pictures ({', '.join(with_bytes) or 'none'}); exactly "
            f"one is needed, or one called image. Name it with --image-column. Its columns: {', '.join(schema.names)}."
        )
    for path in (image, *columns.media):
        kind = type_at(schema, path)
        if kind is None or not (_holds_bytes(kind) or _is_text(kind)):
            raise SettingError(
                f"--image-column {path!r} of {uri} has type {kind}; pictures are binary, struct<bytes, path>, or text: "
                f"their URI{_list_hint(kind, path)}. Columns that fit: {', '.join(with_bytes + with_uris) or 'none'}."
            )
    key = columns.key or next((name for name in KEY_NAMES if name in schema.names), None)
    captions = [name for name in CAPTION_NAMES if name in schema.names and _is_text(schema.field(name).type)]
    caption = columns.caption or next((name for name in captions if name != image), None)
    return ParquetColumns(image=image, key=key, caption=caption, media=columns.media)


def type_at(schema: pa.Schema, path: str) -> pa.DataType | None:
    """The type at a path; None where it leads nowhere."""
    steps = _steps(schema, path)
    return steps[-1][1] if steps else None


def stored_path(schema: pa.Schema, path: str) -> str:
    """The part of a path that Parquet can read by itself: up to the first list."""
    steps = _steps(schema, path) or []
    names = []
    for name, kind in steps:
        names.append(name)
        if is_list(kind):
            break
    return ".".join(names)


def is_list(kind: pa.DataType) -> bool:
    """Whether its elements are entered by number."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _steps(schema: pa.Schema, path: str) -> list[tuple[str, pa.DataType]] | None:
    """(name, type) of every step of a path; a column whose own name has dots is one step."""
    if path in schema.names:
        return [(path, schema.field(path).type)]
    first, *rest = path.split(".")
    if first not in schema.names:
        return None
    steps = [(first, schema.field(first).type)]
    for name in rest:
        kind = steps[-1][1]
        if pa.types.is_struct(kind) and kind.get_field_index(name) >= 0:
            steps.append((name, kind.field(name).type))
        elif is_list(kind) and name.isdecimal():
            steps.append((name, kind.value_type))
        else:
            return None
    return steps


def _only_image(with_bytes: list[str], with_uris: list[str]) -> str | None:
    if "image" in with_bytes or not with_bytes:
        return next(iter([name for name in with_bytes if name == "image"] + with_uris), None)
    return with_bytes[0] if len(with_bytes) == 1 else None


def _list_hint(kind: pa.DataType | None, path: str) -> str:
    return f" (name one element of a list: {path}.0)" if kind is not None and is_list(kind) else ""


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
