"""Compare an output with what it must hold: every key once, in data/ or errors/, in complete files."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.dataset import layout
from pipelines.storage.store import FILES


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts of what is wrong, all zero for a correct output except `temporary`, whose files do no harm."""

    lost: int = 0
    """Keys of the input without a row, or whose row does not have the content of the input."""
    duplicated: int = 0
    """Rows of a key beyond its first."""
    foreign: int = 0
    """Rows of keys or contents that are not in the input."""
    torn: int = 0
    """Files that are unreadable, belong to no finished version, or do not have the number of rows that it counts."""
    temporary: int = 0
    """Partial files left by killed writers."""

    @property
    def is_clean(self) -> bool:
        """Return whether every key is there exactly once, in complete files."""
        return self.lost == self.duplicated == self.foreign == self.torn == 0


def tally(
    output: str,
    keys: Iterable[str],
    images: Mapping[str, bytes] | None = None,
    may_be_gone: Collection[str] = (),
) -> Tally:
    """Read every file of an output and count.

    Args:
        output: URI of the output.
        keys: Keys of the input.
        images: Images of the input by key; a row in data/ must hold the image of its key.
        may_be_gone: Keys that need not be there, but at most once.
    """
    expected = set(keys)
    found: Counter[str] = Counter()
    right: set[str] = set()
    foreign = torn = 0
    for uri, counted in _files(output):
        rows = _rows(uri)
        torn += rows is None or len(rows) != counted
        for key, image in rows or ():
            found[key] += 1
            is_right = key in expected and (images is None or image is None or image == images[key])
            foreign += not is_right
            right |= {key} if is_right else set()
    return Tally(
        lost=len(expected - right - set(may_be_gone)),
        duplicated=sum(count - 1 for count in found.values()),
        foreign=foreign,
        torn=torn,
        temporary=len([*Path(output).rglob(".*.tmp")]) if storage.protocol(output) == "file" else 0,
    )


def error_rows(output: str) -> list[dict[str, object]]:
    """Return the rows in errors/."""
    uris = [uri for uri, _ in _files(output) if uri.rsplit("/", 2)[1] == "errors"]
    tables = []
    for uri in uris:
        with FILES.open_read(uri) as file:
            tables.append(pq.read_table(file))
    return [row for table in tables for row in table.to_pylist()]


def _files(output: str) -> list[tuple[str, int | None]]:
    """List the files of data/ and errors/ with the rows that their version counts, None without a finished version."""
    counts = {
        uri: version.ok if uri == version.data_uri else version.bad
        for version in layout.list_output(output).finished
        for uri in version.files
    }
    uris = [uri for folder in ("data", "errors") for uri in FILES.list_uris(f"{output}/{folder}")]
    return [(uri, counts.get(uri)) for uri in uris if uri.endswith(".parquet")]


def _rows(uri: str) -> list[tuple[str, bytes | None]] | None:
    """Read all columns of a Parquet file; return (key, image or None) of its rows, or None if it is unreadable."""
    try:
        with FILES.open_read(uri) as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError):
        return None
    keys = table.column("key").to_pylist()
    if "image" not in table.column_names:
        return [(key, None) for key in keys]
    return [(key, image["bytes"]) for key, image in zip(keys, table.column("image").to_pylist(), strict=True)]
