"""Which samples of an input are near duplicates, decided from their signatures and the rows of the output.

Tested in tests/pipelines/quality/test_signature_pass.py.
"""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.dataset.chunk_files import failed_positions
from pipelines.dataset.layout import Version
from pipelines.errors import printable
from pipelines.planning.finished import MarkReader
from pipelines.planning.plan import folder_files
from pipelines.quality.near_duplicates import duplicates
from pipelines.quality.perceptual_hash import SIGNATURE_BYTES
from pipelines.readers.shard_index import MeasuredShard
from pipelines.samples import Chunk
from pipelines.storage.store import READING_THREADS, Store, map_concurrently


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The near duplicates of an input."""

    _kept: Mapping[bytes, str] = field(default_factory=dict)
    """Identity of each duplicate -> key of the sample that is kept."""

    def __len__(self) -> int:
        return len(self._kept)

    def in_chunk(self, chunk: Chunk) -> dict[int, str]:
        """Return position -> key of the sample that is kept, for each duplicate of a chunk."""
        identities = {position: _identity_in(chunk, position) for position in (chunk.positions if self._kept else ())}
        return {position: self._kept[each] for position, each in identities.items() if each in self._kept}


def decide(
    measured: Sequence[MeasuredShard], signed: Sequence[Version], published: Sequence[Version], store: Store
) -> Duplicates:
    """Decide which samples are near duplicates.

    Args:
        measured: The shards of the input.
        signed: The finished chunks of signatures.
        published: The finished chunks of the output. Those of an earlier content of the input do not count.
        store: Where the files are.
    """
    samples = _read(signed, store)
    if samples is None:
        return Duplicates()
    wanted, kept = _Input.of(measured), _Published.of(published, _hashes_of_ranges(measured), store)
    rows = list(_rows(samples))
    in_input = np.array([wanted.has(row) for row in rows])
    is_published = np.array([kept.has(row) and not wanted.replaces(row) for row in rows])
    identities = np.array([_identity(row) for row in rows], "V16")
    counts = np.zeros(len(rows), bool)
    counts[np.unique(identities, return_index=True)[1]] = True
    chosen = np.flatnonzero(counts & (in_input | is_published))
    partner = duplicates(_signatures(samples, chosen), is_published[chosen])
    keys = samples.column("key")
    return Duplicates(
        _kept={
            identities[chosen[at]].tobytes(): keys[int(chosen[partner[at]])].as_py()
            for at in np.flatnonzero(partner >= 0).tolist()
        }
    )


class _Row(NamedTuple):
    """A row of signatures, without key and signature."""

    shard: str
    version: str
    position: int
    file: str | None


def _identity(row: _Row) -> bytes:
    """Return 16 bytes that identify the content of a sample."""
    place = row.file or f"{storage.short_hash(row.shard)} {row.position}"
    return hashlib.blake2b(f"{place}\n{row.version}".encode(), digest_size=16).digest()


def _identity_in(chunk: Chunk, position: int) -> bytes:
    """Return the identity of a sample of a chunk."""
    if not chunk.files:
        return _identity(_Row(printable(chunk.shard_uri), chunk.shard_fingerprint, position, None))
    file = chunk.files[position]
    return _identity(_Row("", file.fingerprint, 0, printable(file.uri)))


@dataclass(frozen=True, kw_only=True)
class _Input:
    """What belongs to the input."""

    shards: Mapping[str, tuple[str, int]]
    """URI of a shard -> fingerprint and number of samples."""
    files: Mapping[str, str]
    """URI of a loose image -> fingerprint, empty if the image is beyond the limit of the run."""

    @classmethod
    def of(cls, measured: Sequence[MeasuredShard]) -> "_Input":
        folders = [found for found in measured if found.shard.is_folder]
        ranges = [found for found in measured if not found.shard.is_folder]
        files = {
            printable(file.uri): file.fingerprint if at < found.samples else ""
            for found in folders
            for at, file in enumerate(folder_files(found.shard))
        }
        shards = {printable(found.shard.uri): (found.shard.fingerprint, found.samples) for found in ranges}
        return cls(shards=shards, files=files)

    def has(self, row: _Row) -> bool:
        """Whether a row is about a sample of the input."""
        if row.file is not None:
            return self.files.get(row.file) == row.version
        fingerprint, samples = self.shards.get(row.shard, ("", 0))
        return fingerprint == row.version and row.position < samples

    def replaces(self, row: _Row) -> bool:
        """Whether the input has another content where the row's sample was."""
        if row.file is not None:
            return self.files.get(row.file, row.version) not in (row.version, "")
        return self.shards.get(row.shard, (row.version, 0))[0] != row.version


@dataclass(frozen=True, kw_only=True)
class _Published:
    """The samples with a row in the output."""

    shards: dict[tuple[str, str], bytearray] = field(default_factory=dict)
    """Hash of the URI and fingerprint of a shard -> 1 for each position with a row."""
    files: set[tuple[str, str]] = field(default_factory=set)
    """URI and fingerprint of loose images."""

    @classmethod
    def of(cls, versions: Sequence[Version], ranges: Container[str], store: Store) -> "_Published":
        """Read which samples are published. Only marks that may be those of loose images are read.

        Args:
            versions: The finished chunks of the output.
            ranges: Hashes of the URIs of shards that are known not to be folders.
            store: Where the output is.
        """
        found = cls()
        may_be_loose = (each for each in versions if each.name.start == 0 and each.name.shard not in ranges)
        listed = MarkReader(store).lists(each.mark_uri for each in may_be_loose)
        failures = map_concurrently(store, partial(_failed, store=store), versions, READING_THREADS)
        for version, failed in zip(versions, failures, strict=True):
            if version.mark_uri in listed:
                files = list(listed[version.mark_uri].items())
                found.files.update((printable(file[0]), file[1]) for at, file in enumerate(files) if at not in failed)
            else:
                found._add_range(version, failed)
        return found

    def _add_range(self, version: Version, failed: Iterable[int]) -> None:
        start, stop = version.name.start, version.name.stop
        positions = self.shards.setdefault((version.name.shard, version.name.fingerprint), bytearray())
        positions.extend(bytes(max(0, stop - len(positions))))
        before = bytes(positions)
        positions[start:stop] = b"\1" * (stop - start)
        for position in failed:
            positions[position] = before[position]

    def has(self, row: _Row) -> bool:
        """Whether the sample of a row is published."""
        if row.file is not None:
            return (row.file, row.version) in self.files
        positions = self.shards.get((storage.short_hash(row.shard), row.version), b"")
        return row.position < len(positions) and bool(positions[row.position])


def _hashes_of_ranges(measured: Sequence[MeasuredShard]) -> set[str]:
    return {storage.short_hash(found.shard.uri) for found in measured if not found.shard.is_folder}


def _failed(version: Version, store: Store) -> set[int]:
    return set(failed_positions(version, store)) if version.bad else set()


def _read(signed: Sequence[Version], store: Store) -> pa.Table | None:
    """Return the rows of all signatures, ordered by shard, position (of loose images: key)."""

    def table(version: Version) -> pa.Table | None:
        try:
            with store.open_read(version.data_uri) as file:
                return pq.read_table(file)
        except FileNotFoundError:  # another run has just removed it
            return None

    having_rows = [version for version in signed if version.ok]
    tables = [found for found in map_concurrently(store, table, having_rows, READING_THREADS) if found is not None]
    if not tables:
        return None
    whole = pa.concat_tables(tables)
    loose = whole.column("file").is_valid().to_numpy(zero_copy_only=False)
    order = np.where(loose, 0, whole.column("position").to_numpy())
    ordered = whole.append_column("order", pa.array(order))
    return ordered.sort_by([("shard", "ascending"), ("order", "ascending"), ("key", "ascending")]).combine_chunks()


def _rows(samples: pa.Table) -> Iterator[_Row]:
    columns = (samples.column(name).to_pylist() for name in ("shard", "version", "position", "file"))
    yield from map(_Row, *columns)


def _signatures(samples: pa.Table, chosen: np.ndarray) -> np.ndarray:
    """Return (N, SIGNATURE_BYTES) uint8."""
    values = samples.column("signature").combine_chunks().take(pa.array(chosen))
    buffer = np.frombuffer(values.buffers()[1], np.uint8)
    start = values.offset * SIGNATURE_BYTES
    return buffer[start : start + len(values) * SIGNATURE_BYTES].reshape(-1, SIGNATURE_BYTES)
