# pyarrow declares the options of its writer too narrowly.
# pyright: reportArgumentType=false
"""Arrow schemas of the published files, with the Hugging Face features that make images appear as images.

Tested in tests/pipelines/dataset/test_features.py.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROW_GROUP_BYTES = 100 << 20
ROW_GROUP_ROWS = 1000
_VALUE_NAMES = {"float": "float32", "double": "float64"}

ERRORS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


def with_features(schema: pa.Schema, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """Return the schema with the features of the `datasets` library (media columns: `Image`) and more metadata."""
    features = {field.name: _feature(field.type) for field in schema}
    huggingface = json.dumps({"info": {"features": features}})
    return schema.with_metadata({"huggingface": huggingface, **(metadata or {})})


def stem_of(key: str) -> str:
    """The name of the images of a row: its key without folders and extensions."""
    return key.rsplit("/", 1)[-1].split(".", 1)[0]


def parquet_bytes(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Encode rows as one Parquet file, in row groups of at most about 100 MB; media columns are not compressed."""
    media = {field.name for field in schema if field.type == MEDIA}
    plain = [field.name for field in schema if field.name not in media]
    buffer = BytesIO()
    options: dict[str, Any] = {
        "compression": {
            **{name: "zstd" for name in plain},
            **{f"{name}.{part}": "none" for name in media for part in ("bytes", "path")},
        },
        "use_dictionary": [name for name in plain if pa.types.is_string(schema.field(name).type)],
        "write_statistics": plain,
    }
    with pq.ParquetWriter(buffer, schema, **options) as writer:
        for group in _row_groups(rows, media):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    return buffer.getvalue()


def value_name(kind: pa.DataType) -> str:
    """The name of a type in the `datasets` library."""
    return _VALUE_NAMES.get(str(kind), str(kind))


def _row_groups(rows: Iterable[Mapping[str, Any]], media: set[str]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    size_bytes = 0
    for row in rows:
        row_bytes = sum(len(row[name]["bytes"]) for name in media)
        if group and (size_bytes + row_bytes > ROW_GROUP_BYTES or len(group) >= ROW_GROUP_ROWS):
            yield group
            group, size_bytes = [], 0
        group.append(row)
        size_bytes += row_bytes
    if group:
        yield group


def _feature(kind: pa.DataType) -> dict[str, str]:
    return {"_type": "Image"} if kind == MEDIA else {"dtype": value_name(kind), "_type": "Value"}
