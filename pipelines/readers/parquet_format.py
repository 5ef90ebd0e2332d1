"""The shard format of Parquet files.

Tested in tests/pipelines/readers/test_parquet.py and test_misfits.py.
"""

from collections.abc import Iterator, Mapping, Sequence

from pipelines.errors import MisfitError
from pipelines.readers.misfits import MAX_MISFITS
from pipelines.readers.parquet import check_image_columns, index_parquet, read_parquet
from pipelines.readers.shard_index import MeasuredShard, Shard
from pipelines.samples import Chunk, Columns, Sample
from pipelines.storage.damage import is_damage
from pipelines.storage.store import PLANNING_THREADS, Store, map_concurrently


class ParquetFormat:
    """See `pipelines.readers.formats.ShardFormat`."""

    names: tuple[str, ...] = ("parquet",)
    endings: Mapping[str, str] = {".parquet": "parquet", ".pq": "parquet"}
    describes: tuple[str, ...] = ("tar", "tar.gz")
    yields_to_others = False
    has_keys = True
    has_named_image = True
    has_predicates = True
    is_readable_before_damage = False

    def measure(self, shard: Shard, columns: Columns, output: str, store: Store) -> MeasuredShard:
        """Read the footer, the key column and the columns of the predicates."""
        index = index_parquet(shard.uri, columns, store)
        return MeasuredShard.of(shard, index, index.samples)

    def read(self, chunk: Chunk, columns: Columns, store: Store) -> Iterator[Sample]:
        """See `read_parquet`."""
        return read_parquet(chunk, columns, store)

    def check_media(self, shards: Sequence[Shard], options: Mapping[str, str], store: Store) -> None:
        """Check the footers of the first files. Raises the error of the first one if none has the columns."""
        first: MisfitError | None = None
        for start in range(0, min(len(shards), MAX_MISFITS), PLANNING_THREADS):
            some = shards[start : start + PLANNING_THREADS]
            found = map_concurrently(store, lambda shard: _misfit(shard.uri, options, store), some, PLANNING_THREADS)
            for error in found:
                if error is None:
                    return
                first = first or error
        if first is not None:
            raise first

    def check_image(self, shards: Sequence[Shard], wanted: str, store: Store) -> None:
        """Leave this to `measure`, which reads every footer."""

    def check_caption(self, shards: Sequence[Shard], wanted: str, store: Store, option: str) -> bool:
        """Leave this to `measure`, which reads every footer."""
        return False


PARQUET = ParquetFormat()


def _misfit(uri: str, options: Mapping[str, str], store: Store) -> MisfitError | None:
    """Return why a file does not have the columns; None if it has them, or is damaged and becomes an error row."""
    try:
        check_image_columns(uri, list(options), store)
    except MisfitError as error:
        message = str(error)
        for name, option in options.items():
            message = message.replace(f"--image-column {name!r}", option)
        return MisfitError(message)
    except Exception as error:
        if not is_damage(error):
            raise
    return None
