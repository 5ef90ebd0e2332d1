"""The file formats of published rows: what a chunk's file in data/ is, both ways."""

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
    """Rows <-> the bytes of one file. Light and picklable; the same rows give the same bytes."""

    name: str
    """Of the format, in `--output-format` and in the `datasets` library."""
    extension: str

    def encode(self, rows: Sequence[Row], rows_schema: pa.Schema) -> bytes:
        """The file of some rows; media columns are `schema.MEDIA`."""
        ...

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """The rows of a file one by one, whole or some columns of them."""
        ...

    def column_names(self, uri: str, store: Store = FILES) -> frozenset[str]:
        """The columns of a file."""
        ...

    def features(self, rows_schema: pa.Schema, kept: Collection[str]) -> Features:
        """What reading every row needs to be told of the columns; nothing where the files say it.

        kept: media columns whose images are of the kind that they came as.
        """
        ...


class Parquet:
    """Parquet with the features of the `datasets` library."""

    name = "parquet"
    extension = "parquet"

    def encode(self, rows: Iterable[Row], rows_schema: pa.Schema) -> bytes:
        """One Parquet file."""
        return schema.parquet_bytes(rows, rows_schema)

    def read(self, uri: str, columns: Sequence[str] | None = None, store: Store = FILES) -> Iterator[dict[str, Any]]:
        """The rows, a few in memory at a time."""
        with store.open_read(uri) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(16, columns=None if columns is None else list(columns)):
                yield from batch.to_pylist()

    def column_names(self, uri: str, store: Store = FILES) -> frozenset[str]:
        """From the footer."""
        with store.open_read(uri) as file, pq.ParquetFile(file) as parquet:
            return frozenset(parquet.schema_arrow.names)

    def features(self, rows_schema: pa.Schema, kept: Collection[str]) -> Features:
        """Nothing: the files say what their columns are."""
        return {}


PARQUET = Parquet()
ROW_FORMATS: Mapping[str, RowFormat] = {form.name: form for form in (PARQUET, WebDataset())}
