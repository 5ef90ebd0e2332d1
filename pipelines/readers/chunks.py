"""Reading the samples of one chunk, whatever the format of its shard. A sample that cannot be read has a problem."""

from collections.abc import Iterator

from pipelines import storage
from pipelines.errors import SampleError, ShardChangedError
from pipelines.readers.fields import place_of
from pipelines.readers.formats import format_called
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.store import FILES, Store


def read_chunk(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """Read the samples of a chunk in order, one for each of `chunk.positions`.

    Raises:
        OSError: the storage failed, or the shard has changed since planning.
    """
    yield from checked(_samples(chunk, columns, planned(chunk, store)), chunk, store)


def planned(chunk: Chunk, store: Store) -> Store:
    """Return the store, restricted to the versions of the chunk's files that were planned."""
    shard = {chunk.shard_uri: chunk.shard_fingerprint} if chunk.shard_fingerprint else {}
    return store.pinned({**shard, **{uri: version for file in chunk.files for uri, version in file.versions.items()}})


def checked(samples: Iterator[Sample], chunk: Chunk, store: Store) -> Iterator[Sample]:
    """Yield the samples of a chunk. If reading ends at damaged content, the missing ones get the reason as a problem.

    Raises:
        OSError: after the last sample, if the shard is not the file that was planned. The samples may then come from
            either of the two files.
    """
    left = list(reversed(chunk.positions))
    try:
        for sample in samples:
            yield sample
            left.pop()
    except Exception as error:
        if not is_damage(error):
            raise
        problem = SampleError("read", f"the shard cannot be read any further: {reason_of(error)}")
        stem = place_of(chunk.shard_uri)[1]
        for position in reversed(left):
            yield Sample(position=position, key=f"{stem}/{position:08d}", problem=problem)
    if chunk.shard_fingerprint:
        now = store.stat(chunk.shard_uri)
        if now is None or now.fingerprint != chunk.shard_fingerprint:
            raise ShardChangedError(f"{chunk.shard_uri} {storage.HAS_CHANGED}")


def _samples(chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
    wanted = set(chunk.only) or None
    form = format_called(chunk.shard_format)
    if not chunk.damage or form.is_readable_before_damage:
        for sample in form.read(chunk, columns, store):
            if wanted is None or sample.position in wanted:
                yield sample
    if chunk.damage and (wanted is None or chunk.damage_position in wanted):
        yield damage_sample(chunk)


def damage_sample(chunk: Chunk) -> Sample:
    """Return the one sample that stands for the unreadable rest of a shard."""
    name = chunk.shard_uri.rsplit("/", 1)[-1]
    return Sample(position=chunk.damage_position, key=f"{name}#rest", problem=SampleError("shard", chunk.damage))
