"""Why the samples of an output failed, read from errors/ alone, so that failures of killed runs are counted, too.

The names of finished versions say which of them have failures, and how many. At most FILES_READ files of these versions
are read, those with the most failures first; for the others, only the number of samples is reported.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.dataset import layout
from pipelines.storage.errors import redacted

FILES_READ = 1_000
READING_THREADS = 16
COLUMNS = ["stage", "reason"]
REASONS_SHOWN = 8
NAMED_FILE = re.compile(r"(?<=cannot read )\S.*?: (?=\S)")


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """Failed samples, counted by what was wrong with them."""

    counts: Counter[str] = field(default_factory=Counter)
    """`stage: kind of reason` -> number of samples."""
    unread: int = 0
    """Failed samples whose file was not read or is missing."""


def read_reasons(versions: Iterable[layout.Version]) -> Reasons:
    """Count the reasons of the failed samples of some finished chunks. Raises OSError if the storage fails."""
    failed = sorted((version for version in versions if version.bad), key=_order)
    kinds: Counter[str] = Counter()
    unread = sum(version.bad for version in failed[FILES_READ:])
    for version, found in _read(failed[:FILES_READ]):
        kinds.update(found or {})
        unread += version.bad if found is None else 0
    counts: Counter[str] = Counter()
    for kind, count in kinds.items():
        counts[redacted(kind)] += count
    return Reasons(counts=counts, unread=unread)


def _order(version: layout.Version) -> tuple[int, str]:
    """Sort key: the most failures first, then by hash, so that no shard is preferred."""
    return -version.bad, storage.short_hash(version.stem)


def _read(versions: Sequence[layout.Version]) -> Iterable[tuple[layout.Version, Counter[str] | None]]:
    uris = [version.errors_uri for version in versions]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        yield from zip(versions, pool.map(_reasons_in, uris), strict=True)


def _reasons_in(uri: str) -> Counter[str] | None:
    """Count the reasons in one file, which is read in one request; None if it is missing or damaged."""
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(uri)))
        table = file.read(columns=COLUMNS, use_threads=False)
    except (FileNotFoundError, pa.ArrowException):
        return None
    counted = table.group_by(COLUMNS, use_threads=False).aggregate([([], "count_all")]).to_pylist()
    return reason_kinds(Counter({f"{row['stage']}: {row['reason']}": row["count_all"] for row in counted}))


def reason_kinds(reasons: Counter[str]) -> Counter[str]:
    """Count reasons without the details of one sample: the text up to the second colon or the first parenthesis.

    The name of a file that cannot be read is left out, but not the text after it.
    """
    kinds: Counter[str] = Counter()
    for reason, count in dict(reasons).items():
        text = NAMED_FILE.sub("a file, ", reason)
        kinds[":".join(text.split(" (")[0].split(":")[:2])] += count
    return kinds


def reasons_text(reasons: Counter[str]) -> str:
    """Format the most common reasons, one per line, with counts."""
    lines = [f"    {count:>6}  {reason[:160]}" for reason, count in reasons.most_common(REASONS_SHOWN)]
    if len(reasons) > REASONS_SHOWN:
        lines.append(f"            and {len(reasons) - REASONS_SHOWN} other reasons")
    return "\n".join(lines)
