"""The files of one chunk: errors, then data, then the mark.

Their names say which positions failed (`pipelines.chunk_names`), so whatever is published beside them, by
another attempt or another run, never mixes with them. A stop in between leaves files that do not count, and the chunk
is done again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines import chunk_names
from pipelines.dataset import layout, schema
from pipelines.dataset.marks import write_mark
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.blocks import NOT_STORABLE, unstorable
from pipelines.errors import FETCH
from pipelines.samples import Chunk
from pipelines.storage.store import FILES, Store
from pipelines.texts import printable

MAX_REMOVALS = 1_000
"""Of versions of one outcome of one chunk."""


Rows = Sequence[Mapping[str, Any]]


def failed_positions(version: layout.Version, store: Store = FILES, waiting_only: bool = False) -> list[int]:
    """Positions of the samples of a finished version that are in errors/; none if another run has removed it.

    waiting_only: those that wait, see `pipelines.errors.PassingError`.

    Raises:
        OSError: the file is damaged.
    """
    try:
        rows = PARQUET.read(version.errors_uri, ["position", "stage"], store)
        return [row["position"] for row in rows if not waiting_only or row["stage"] == FETCH]
    except FileNotFoundError:
        return []
    except pa.ArrowException as error:
        raise OSError(
            f"{version.errors_uri} is damaged ({error}). Delete it: the same command then does its chunk again."
        ) from error


class _NewVersion(NamedTuple):
    """A version of a chunk that is not published yet."""

    ok: int
    content: bytes | None
    """The file of its `ok` rows; None where a value of one of them has no place in it."""
    errors: Rows


@dataclass(frozen=True, kw_only=True)
class _ChunkFiles:
    """The files of chunks: rows in one format, errors in Parquet, marks."""

    output: str
    rows_schema: pa.Schema
    row_format: RowFormat
    store: Store

    def version(self, chunk: Chunk, rows: Rows, errors: Rows) -> "_NewVersion":
        """The version of a whole chunk, of rows and errors of its samples or of those that were done again."""
        if chunk.only:
            rows, errors = self.merged(chunk, rows, errors)
        try:
            content = self.row_format.encode(rows, self.rows_schema) if rows else b""
        except NOT_STORABLE:
            content = None
        return _NewVersion(len(rows), content, _by_position(errors))

    def without_unstorable(self, rows: Rows, chunk: Chunk, errors: list[dict[str, Any]]) -> Rows:
        """The rows that can be stored; each of the others is added to `errors`."""
        refused = unstorable(rows, lambda one: self.row_format.encode(one, self.rows_schema))
        for at, reason in refused.items():
            errors.append(_error(str(rows[at]["key"]), rows[at]["position"], chunk, "publish", reason))
        return [row for at, row in enumerate(rows) if at not in refused]

    def write(self, chunk: Chunk, version: "_NewVersion") -> None:
        """Publish a version of the whole chunk."""
        if version.content is None:
            raise ValueError(f"chunk {chunk.name}: its rows can be stored one by one, but not together")
        errors = version.errors
        waiting = {error["position"] for error in errors if error["stage"] == FETCH}
        mark = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
        for removals in range(MAX_REMOVALS):
            positions = (error["position"] for error in errors)
            stem = chunk_names.version_stem(chunk.name, version.ok, positions, waiting, removals)
            if errors:
                self.store.publish(layout.errors_uri(self.output, stem), PARQUET.encode(errors, schema.ERRORS))
            if version.ok:
                self.store.publish(layout.data_uri(self.output, stem, self.row_format.extension), version.content)
            if write_mark(self.store, layout.mark_uri(self.output, stem), json.dumps(mark).encode()):
                return
        raise OSError(f"chunk {chunk.name}: other runs have removed its files {MAX_REMOVALS} times")

    def merged(self, chunk: Chunk, rows: Rows, errors: Rows) -> tuple[Rows, Rows]:
        """Samples done again together with the published ones of the same chunk."""
        before = self._published(chunk.base_data, self.row_format), self._published(chunk.base_errors, PARQUET)
        again = set(chunk.only)
        all_rows, all_errors = (
            _by_position([*(row for row in old if row["position"] not in again), *new])
            for old, new in zip(before, (rows, errors), strict=True)
        )
        positions = sorted(row["position"] for row in (*all_rows, *all_errors))
        if positions != list(range(chunk.start, chunk.stop)):
            raise OSError(
                f"chunk {chunk.name}: the published files account for other samples than their names say; "
                "the same command does the chunk again"
            )
        return all_rows, all_errors

    def _published(self, uri: str, row_format: RowFormat) -> Rows:
        """The rows of a file that a retry builds on. Raises FileNotFoundError where another run has replaced it."""
        return list(row_format.read(uri, store=self.store)) if uri else []


def _waits_on(chunk: Chunk, errors: Rows) -> bool:
    """Whether a version's waiting samples were tried again and all of them wait on: it stays as it is."""
    waiting = sum(error["stage"] == FETCH for error in errors)
    return bool(chunk.only) and waiting == len(chunk.only) == chunk_names.waiting_in(chunk.base_errors)


def _by_position(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: row["position"])


def _error(key: str, position: int, chunk: Chunk, stage: str, reason: str) -> dict[str, Any]:
    return {
        "key": printable(key),
        "shard": printable(chunk.shard_uri),
        "position": position,
        "stage": stage,
        "reason": reason,
    }
