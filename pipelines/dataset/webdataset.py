"""Published rows as WebDataset tars: KEY.jpg the picture as it came, KEY.CONDITION.png the maps, KEY.json the rest."""

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
"""What the `datasets` library adds to every sample."""
IMAGE = "image"
"""The media column whose file is called by its extension alone."""
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
"""A tar's names end at a NUL, and no program expects line breaks in them."""


class WebDataset:
    """One tar a chunk, one sample a row. A value of `pipelines.dataset.row_formats.RowFormat`."""

    name = "webdataset"
    extension = "tar"

    def encode(self, rows: Sequence[Mapping[str, Any]], rows_schema: pa.Schema) -> bytes:
        """A tar of the rows in their order, without times and owners."""
        media = [field.name for field in rows_schema if field.type == schema.MEDIA]
        names: set[str] = set()
        return tar_bytes((_new_name(row, names), _parts(row, media, rows_schema.names)) for row in rows)

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """The rows of a tar that `encode` made, some columns of each."""
        sample, row = "", {}
        with store.open_read(uri) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for info in tar:
                name, extension = split_name(info.name) or ("", "")
                if row and name != sample:
                    yield _chosen(row, columns)
                    row = {}
                sample = name
                row |= _columns(info.name, extension, tar.extractfile(info))
        if row:
            yield _chosen(row, columns)

    def column_names(self, uri: str, store: Store = FILES) -> frozenset[str]:
        """From the first sample."""
        return frozenset(next(self.read(uri, store=store), {}))

    def features(self, rows_schema: pa.Schema, kept: Collection[str]) -> Features:
        """A column for every kind of image: the `datasets` library would take those of the first samples for all."""
        media = [field.name for field in rows_schema if field.type == schema.MEDIA]
        images = [member for name in media for member in member_extensions(name, name in kept)]
        fields = {field.name: schema.value_name(field.type) for field in rows_schema if field.name not in media}
        return {**dict.fromkeys(images, "image"), **dict.fromkeys(KEYS, "string"), "json": fields}


def member_extensions(column: str, is_kept: bool) -> tuple[str, ...]:
    """The extensions that images of a media column may have in the tars: made by this program they are PNGs."""
    kinds = tuple(SPELLINGS) if is_kept else ("png",)
    return kinds if column == IMAGE else tuple(f"{column}.{kind}" for kind in kinds)


def tar_name(key: str) -> str:
    """A key as the name of a WebDataset sample, which ends at its first dot and may not begin with two underscores."""
    folders = [part for part in CONTROLS.sub("_", key).split("/") if part not in ("", ".", "..")]
    last = (folders.pop() if folders else "sample").replace(".", "_")
    return "/".join([*folders, f"-{last}" if last.startswith("__") else last])


def _new_name(row: Mapping[str, Any], names: set[str]) -> str:
    """The name of a row's files, which no row before has: `a.b` and `a_b` are two keys."""
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
    """What one file of a sample says: the values of a JSON file, or a media column."""
    content = file.read()
    if extension == "json":
        return json.loads(content)
    return {extension.rpartition(".")[0] or IMAGE: {"bytes": content, "path": path.rsplit("/", 1)[-1]}}


def _chosen(row: dict[str, Any], columns: Sequence[str] | None) -> dict[str, Any]:
    return row if columns is None else {name: row.get(name) for name in columns}
