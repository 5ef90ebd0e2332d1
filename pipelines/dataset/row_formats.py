"""The file formats of published rows: writing and reading the files in data/.

Tested in tests/pipelines/dataset/test_webdataset.py and tests/pipelines/stages/test_publish.py.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset import schema
from pipelines.dataset.features import Features
from pipelines.dataset.webdataset import WebDataset
from pipelines.storage.store import FILES, Store

Row = Mapping[str, Any]


class RowFormat(Protocol):
    """Converts rows to the bytes of one file and back. Lightweight, picklable and deterministic."""

    name: str
    """Name of the format in `--output-format` and in the `datasets` library."""
    extension: str

    def encode(self, rows: Sequence[Row], rows_schema: pa.Schema) -> bytes:
        """Encode rows as one file; media columns are of the type `schema.MEDIA`."""
        ...

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """Yield the rows of a file, with all columns or only some."""
        ...

    def column_names(self, uri: str, store: Store = FILES) -> frozenset[str]:
        """Return the names of the columns of a file."""
        ...

    def features(self, rows_schema: pa.Schema, passthrough: Collection[str]) -> Features:
        """Return what a reader must know about the columns; nothing if the files are self-describing.

        Args:
            rows_schema: The schema of the rows.
            passthrough: Media columns whose images are stored unchanged, in any format.
        """
        ...


class Parquet:
    """Parquet with the features of the `datasets` library."""

    name = "parquet"
    extension = "parquet"

    def encode(self, rows: Iterable[Row], rows_schema: pa.Schema) -> bytes:
        """Encode rows as one Parquet file."""
        return schema.parquet_bytes(rows, rows_schema)

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """Yield the rows, with a few in memory at a time."""
        with store.open_read(uri) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(16, columns=None if columns is None else list(columns)):
                yield from batch.to_pylist()

    def column_names(self, uri: str, store: Store = FILES) -> frozenset[str]:
        """Return the names of the columns, from the footer."""
        with store.open_read(uri) as file, pq.ParquetFile(file) as parquet:
            return frozenset(parquet.schema_arrow.names)

    def features(self, rows_schema: pa.Schema, passthrough: Collection[str]) -> Features:
        """Return nothing: Parquet files are self-describing."""
        return {}


PARQUET = Parquet()
ROW_FORMATS: Mapping[str, RowFormat] = {form.name: form for form in (PARQUET, WebDataset())}
