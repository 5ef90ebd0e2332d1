"""What an output holds against what it must hold: every key once, in data/ or errors/, in whole files."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import layout, storage


@dataclass(frozen=True, kw_only=True)
class Tally:
    """All zero when all is well; `temporary` files do no harm but lie about."""

    lost: int = 0
    """Keys of the input that are nowhere."""
    duplicated: int = 0
    """Rows beyond the first of a key."""
    foreign: int = 0
    """Keys that the input does not have."""
    torn: int = 0
    """Files that cannot be read, or whose rows are not those that their chunk's mark counts."""
    temporary: int = 0
    """Parts of files that a killed writer has left."""

    @property
    def is_clean(self) -> bool:
        """Every key exactly once, in whole files."""
        return self.lost == self.duplicated == self.foreign == self.torn == 0


def tally(output: str, keys: Iterable[str]) -> Tally:
    """Read every file of an output and count."""
    expected = set(keys)
    found: Counter[str] = Counter()
    torn = 0
    marks = layout.published(output).marks
    for folder in ("data", "errors"):
        for info in storage.list_files(storage.join(output, folder)):
            if not info.uri.endswith(".parquet"):
                continue
            rows = _keys(info.uri)
            mark = marks.get(info.uri.rsplit("/", 1)[-1].removesuffix(".parquet"))
            counted = None if mark is None else mark.ok if folder == "data" else mark.bad
            torn += rows is None or len(rows) != counted
            found.update(rows or ())
    return Tally(
        lost=len(expected - found.keys()),
        duplicated=sum(count - 1 for count in found.values()),
        foreign=len(found.keys() - expected),
        torn=torn,
        temporary=sum(info.uri.endswith(".tmp") for info in storage.list_files(output)),
    )


def _keys(uri: str) -> list[str] | None:
    """The keys in a Parquet file, all of its columns being read; None when it cannot be."""
    try:
        with storage.open_read(uri) as file:
            return pq.read_table(file).column("key").to_pylist()
    except (pa.ArrowException, OSError):
        return None
