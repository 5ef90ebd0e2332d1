"""The files of one chunk, which are written in the order errors, data, mark.

Their names say which positions failed (`pipelines.samples`), so files that another attempt or another run publishes
beside them never mix with them. If the process ends in between, it leaves files that do not count, and the chunk is
processed again.

Tested in tests/pipelines/dataset/test_webdataset.py and tests/pipelines/runs/test_exactly_once.py.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from pipelines.dataset import layout, schema
from pipelines.dataset.marks import write_mark
from pipelines.dataset.row_formats import PARQUET, RowFormat
from pipelines.engine.blocks import NOT_STORABLE, unstorable
from pipelines.errors import FETCH, FILTER, printable
from pipelines.samples import Chunk, version_stem, waiting_in
from pipelines.storage.store import FILES, Store

MAX_REMOVALS = 1_000
"""Maximum number of removed versions of one outcome of one chunk."""

Rows = Sequence[Mapping[str, Any]]


def failed_positions(version: layout.Version, store: Store = FILES, waiting_only: bool = False) -> list[int]:
    """The positions of a finished version that failed; none if another run has removed it.

    Samples that a filter has removed have not failed.

    Args:
        version: The version.
        store: The storage of the output.
        waiting_only: Whether to return only samples that wait, see `pipelines.errors.PassingError`.

    Raises:
        OSError: The file is damaged.
    """
    if version.bad == version.filtered:
        return []
    try:
        rows = PARQUET.read(version.errors_uri, ["position", "stage"], store)
        stages = [(row["position"], row["stage"]) for row in rows]
        return [at for at, stage in stages if stage == FETCH or not (waiting_only or stage == FILTER)]
    except FileNotFoundError:
        return []
    except pa.ArrowException as error:
        raise OSError(
            f"{version.errors_uri} is damaged ({error}). Delete it; the same command then processes its chunk again."
        ) from error


class _NewVersion(NamedTuple):
    """A version of a chunk that is not published yet."""

    ok: int
    content: bytes | None
    """The file of its `ok` rows; None if the format cannot represent a value of one of them."""
    errors: Rows


@dataclass(frozen=True, kw_only=True)
class ChunkFiles:
    """Writes the files of chunks: rows in one format, errors in Parquet, and marks."""

    output: str
    rows_schema: pa.Schema
    row_format: RowFormat
    store: Store

    def version(self, chunk: Chunk, rows: Rows, errors: Rows) -> "_NewVersion":
        """Make the version of a whole chunk from the rows and errors of its samples, or of those processed again."""
        if chunk.only:
            rows, errors = self.merged(chunk, rows, errors)
        try:
            content = self.row_format.encode(rows, self.rows_schema) if rows else b""
        except NOT_STORABLE:
            content = None
        return _NewVersion(len(rows), content, _by_position(errors))

    def without_unstorable(self, rows: Rows, chunk: Chunk, errors: list[dict[str, Any]]) -> Rows:
        """Return the rows that can be stored; the others are added to `errors`."""
        refused = unstorable(rows, lambda one: self.row_format.encode(one, self.rows_schema))
        for at, reason in refused.items():
            errors.append(error_row(str(rows[at]["key"]), rows[at]["position"], chunk, "publish", reason))
        return [row for at, row in enumerate(rows) if at not in refused]

    def write(self, chunk: Chunk, version: "_NewVersion") -> None:
        """Publish a version of the whole chunk."""
        if version.content is None:
            raise ValueError(f"chunk {chunk.name}: its rows can be stored one at a time, but not together")
        errors = version.errors
        waiting, filtered = ({row["position"] for row in errors if row["stage"] == each} for each in (FETCH, FILTER))
        mark = {"shard": chunk.shard_uri, "files": {file.uri: file.fingerprint for file in chunk.files}}
        for removals in range(MAX_REMOVALS):
            positions = (error["position"] for error in errors)
            stem = version_stem(chunk.name, version.ok, positions, waiting, removals, filtered)
            files = {}
            if errors:
                files[layout.errors_uri(self.output, stem)] = PARQUET.encode(errors, schema.ERRORS)
            if version.ok:
                files[layout.data_uri(self.output, stem, self.row_format.extension)] = version.content
            for uri, content in files.items():
                self.store.publish(uri, content)
            if write_mark(self.store, layout.mark_uri(self.output, stem), json.dumps(mark).encode()):
                return
            for uri in files:  # another run has removed this version: nobody ever uses these names again
                self.store.remove(uri)
        raise OSError(f"chunk {chunk.name}: other runs have removed its files {MAX_REMOVALS} times")

    def merged(self, chunk: Chunk, rows: Rows, errors: Rows) -> tuple[Rows, Rows]:
        """Merge samples that were processed again with the published ones of the same chunk."""
        before = self._published(chunk.base_data, self.row_format), self._published(chunk.base_errors, PARQUET)
        again = set(chunk.only)
        all_rows, all_errors = (
            _by_position([*(row for row in old if row["position"] not in again), *new])
            for old, new in zip(before, (rows, errors), strict=True)
        )
        positions = sorted(row["position"] for row in (*all_rows, *all_errors))
        if positions != list(range(chunk.start, chunk.stop)):
            raise OSError(
                f"chunk {chunk.name}: the published files have other samples than their names say; the same command "
                "processes the chunk again"
            )
        return all_rows, all_errors

    def _published(self, uri: str, row_format: RowFormat) -> Rows:
        """The rows of a file that a retry builds on. Raises FileNotFoundError if another run has replaced it."""
        return list(row_format.read(uri, store=self.store)) if uri else []


def still_waits(chunk: Chunk, errors: Rows) -> bool:
    """Whether all waiting samples of a version were tried again and still wait, so that the version stays as it is."""
    waiting = sum(error["stage"] == FETCH for error in errors)
    return bool(chunk.only) and waiting == len(chunk.only) == waiting_in(chunk.base_errors)


def _by_position(rows: Rows) -> Rows:
    return sorted(rows, key=lambda row: row["position"])


def error_row(key: str, position: int, chunk: Chunk, stage: str, reason: str) -> dict[str, Any]:
    """The row of errors/ for a failed sample."""
    return {
        "key": printable(key),
        "shard": printable(chunk.shard_uri),
        "position": position,
        "stage": stage,
        "reason": reason,
    }
