"""What an output holds against what it must hold: every key once, in data/ or errors/, in whole files."""

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
    """All zero when all is well; `temporary` files do no harm but lie about."""

    lost: int = 0
    """Keys of the input that are nowhere, or not with the content that they have in the input."""
    duplicated: int = 0
    """Rows beyond the first of a key."""
    foreign: int = 0
    """Rows of keys or contents that the input does not have."""
    torn: int = 0
    """Files that cannot be read, that are of no finished version, or whose rows are not those that it counts."""
    temporary: int = 0
    """Parts of files that a killed writer has left."""

    @property
    def is_clean(self) -> bool:
        """Every key exactly once, in whole files."""
        return self.lost == self.duplicated == self.foreign == self.torn == 0


def tally(
    output: str,
    keys: Iterable[str],
    pictures: Mapping[str, bytes] | None = None,
    may_be_gone: Collection[str] = (),
) -> Tally:
    """Read every file of an output and count.

    keys: of the input. pictures: of the input by key; a row in data/ must hold the picture of its key. may_be_gone:
    keys that need not be there, once at the most all the same.
    """
    expected = set(keys)
    found: Counter[str] = Counter()
    right: set[str] = set()
    foreign = torn = 0
    for uri, counted in _files(output):
        rows = _rows(uri)
        torn += rows is None or len(rows) != counted
        for key, picture in rows or ():
            found[key] += 1
            is_right = key in expected and (pictures is None or picture is None or picture == pictures[key])
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
    """What is in errors/."""
    uris = [uri for uri, _ in _files(output) if uri.rsplit("/", 2)[1] == "errors"]
    tables = []
    for uri in uris:
        with FILES.open_read(uri) as file:
            tables.append(pq.read_table(file))
    return [row for table in tables for row in table.to_pylist()]


def _files(output: str) -> list[tuple[str, int | None]]:
    """(URI, rows that its version counts; None where it is of no finished version) of data/ and errors/."""
    counts = {
        uri: version.ok if uri == version.data_uri else version.bad
        for version in layout.list_output(output).finished
        for uri in version.files
    }
    uris = [uri for folder in ("data", "errors") for uri in FILES.list_uris(f"{output}/{folder}")]
    return [(uri, counts.get(uri)) for uri in uris if uri.endswith(".parquet")]


def _rows(uri: str) -> list[tuple[str, bytes | None]] | None:
    """(key, picture; None where there is none) of a Parquet file whose columns are all read; None when it cannot be."""
    try:
        with FILES.open_read(uri) as file:
            table = pq.read_table(file)
    except (pa.ArrowException, OSError):
        return None
    keys = table.column("key").to_pylist()
    if "image" not in table.column_names:
        return [(key, None) for key in keys]
    return [(key, image["bytes"]) for key, image in zip(keys, table.column("image").to_pylist(), strict=True)]
