"""Published rows as WebDataset tars: KEY.jpg is the original image, KEY.CONDITION.png a map, KEY.json the rest."""

import json
import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.dataset import schema
from pipelines.dataset.features import Features
from pipelines.dataset.tar_bytes import tar_bytes
from pipelines.images.containers import SPELLINGS, extension_of
from pipelines.readers.tar import split_name
from pipelines.storage.store import FILES, Store

KEYS = ("__key__", "__url__")
"""Columns that the `datasets` library adds to every sample."""
IMAGE = "image"
"""The media column whose member has no column name before its extension."""
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
"""Names in a tar end at a NUL, and no program expects line breaks in them."""


class WebDataset:
    """One tar per chunk, one sample per row. Implements `pipelines.dataset.row_formats.RowFormat`."""

    name = "webdataset"
    extension = "tar"

    def encode(self, rows: Sequence[Mapping[str, Any]], rows_schema: pa.Schema) -> bytes:
        """Encode rows as a tar, in their order, without times and owners."""
        media = [field.name for field in rows_schema if field.type == schema.MEDIA]
        names: set[str] = set()
        return tar_bytes((_new_name(row, names), _parts(row, media, rows_schema.names)) for row in rows)

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """Yield the rows of a tar that `encode` made, with all columns or only some."""
        sample, row = "", {}
        with store.open_read(uri) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for info in tar:
                name, extension = split_name(info.name) or ("", "")
                if row and name != sample:
                    yield _selected(row, columns)
                    row = {}
                sample = name
                row |= _columns(info.name, extension, tar.extractfile(info))
        if row:
            yield _selected(row, columns)

    def column_names(self, uri: str, store: Store = FILES) -> frozenset[str]:
        """Return the names of the columns, from the first sample."""
        return frozenset(next(self.read(uri, store=store), {}))

    def features(self, rows_schema: pa.Schema, passthrough: Collection[str]) -> Features:
        """Return a column for every image format, because the `datasets` library only looks at the first samples."""
        media = [field.name for field in rows_schema if field.type == schema.MEDIA]
        images = [member for name in media for member in member_extensions(name, name in passthrough)]
        fields = {field.name: schema.value_name(field.type) for field in rows_schema if field.name not in media}
        return {**dict.fromkeys(images, "image"), **dict.fromkeys(KEYS, "string"), "json": fields}


def member_extensions(column: str, is_passthrough: bool) -> tuple[str, ...]:
    """The extensions that images of a media column may have in the tars; those made by this program are PNGs."""
    kinds = tuple(SPELLINGS) if is_passthrough else ("png",)
    return kinds if column == IMAGE else tuple(f"{column}.{kind}" for kind in kinds)


def tar_name(key: str) -> str:
    """Turn a key into the name of a WebDataset sample, without dots and without two underscores at the beginning."""
    folders = [part for part in CONTROLS.sub("_", key).split("/") if part not in ("", ".", "..")]
    last = (folders.pop() if folders else "sample").replace(".", "_")
    return "/".join([*folders, f"-{last}" if last.startswith("__") else last])


def _new_name(row: Mapping[str, Any], names: set[str]) -> str:
    """A name for the members of a row that no earlier row has: the keys `a.b` and `a_b` would share one."""
    name = tar_name(row["key"])
    while name in names:
        name = f"{name}-{row['position']}"
    names.add(name)
    return name


def _parts(row: Mapping[str, Any], media: Sequence[str], columns: Sequence[str]) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    for column in media:
        if row[column] is not None:
            content = row[column]["bytes"]
            extension = extension_of(content)
            parts[extension if column == IMAGE else f"{column}.{extension}"] = content
    others = {name: row[name] for name in columns if name not in media}
    return {**parts, "json": json.dumps(others, ensure_ascii=False, separators=(",", ":")).encode()}


def _columns(path: str, extension: str, file: Any) -> dict[str, Any]:
    """The columns in one member of a sample: the values of a JSON file, or a media column."""
    content = file.read()
    if extension == "json":
        return json.loads(content)
    return {extension.rpartition(".")[0] or IMAGE: {"bytes": content, "path": path.rsplit("/", 1)[-1]}}


def _selected(row: dict[str, Any], columns: Sequence[str] | None) -> dict[str, Any]:
    return row if columns is None else {name: row.get(name) for name in columns}
