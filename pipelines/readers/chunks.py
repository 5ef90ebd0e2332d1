"""The samples of one chunk, whatever its shard's format; a sample that cannot be read comes with its problem."""

from collections.abc import Callable, Iterator

from pipelines import storage
from pipelines.damage import is_damage, reason_of
from pipelines.errors import SampleError, ShardChangedError
from pipelines.readers.fields import place_of
from pipelines.readers.folder import read_folder
from pipelines.readers.json_lines import read_json_lines
from pipelines.readers.parquet import read_parquet
from pipelines.readers.tar_samples import choose_member as choose_member
from pipelines.readers.tar_samples import read_tar_samples
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.store import FILES, Store


def read_chunk(chunk: Chunk, columns: Columns, store: Store = FILES) -> Iterator[Sample]:
    """The samples of the chunk, in order, one for each of `chunk.positions`.

    Raises:
        OSError: the storage failed, or the shard has changed since planning.
    """
    yield from checked(_samples(chunk, columns, planned(chunk, store)), chunk, store)


def planned(chunk: Chunk, store: Store) -> Store:
    """The store, in which the chunk's files must be those that were planned."""
    shard = {chunk.shard_uri: chunk.shard_fingerprint} if chunk.shard_fingerprint else {}
    return store.pinned({**shard, **{uri: version for file in chunk.files for uri, version in file.versions.items()}})


def checked(samples: Iterator[Sample], chunk: Chunk, store: Store) -> Iterator[Sample]:
    """The samples of a chunk; where reading breaks off at damaged content, those that are left come with the reason.

    Raises:
        OSError: after the last sample, its shard is another file than was planned, so that samples may be of either.
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
    for sample in _source(chunk)(chunk, columns, store):
        if wanted is None or sample.position in wanted:
            yield sample
    if chunk.damage and (wanted is None or chunk.damage_position in wanted):
        yield damage_sample(chunk)


def _source(chunk: Chunk) -> Callable[[Chunk, Columns, Store], Iterator[Sample]]:
    if chunk.damage and not chunk.shard_format.startswith("tar"):  # nothing of it can be read
        return lambda chunk, columns, store: iter(())
    sources = {"parquet": read_parquet, "folder": read_folder, "jsonl": read_json_lines}
    return sources.get(chunk.shard_format, read_tar_samples)


def damage_sample(chunk: Chunk) -> Sample:
    """The one sample that stands for the unreadable rest of a shard."""
    name = chunk.shard_uri.rsplit("/", 1)[-1]
    return Sample(position=chunk.damage_position, key=f"{name}#rest", problem=SampleError("shard", chunk.damage))
