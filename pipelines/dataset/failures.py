"""Why the failed samples of an output failed, from errors/ alone: records are not asked, so a killed run hides none.

The names of finished versions say which have failures, and how many. Only files of these are read, at most FILES_READ
of them, those with the most failures first; of the rest the number of samples is told.
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


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """Failed samples by what was wrong with them."""

    counts: Counter[str] = field(default_factory=Counter)
    """`stage: kind of reason` -> samples."""
    untold: int = 0
    """Failed samples whose file was not read, or is gone."""


def read_reasons(versions: Iterable[layout.Version]) -> Reasons:
    """The reasons of the failed samples of some finished chunks. Raises OSError when the storage fails."""
    failed = sorted((version for version in versions if version.bad), key=_place)
    kinds: Counter[str] = Counter()
    untold = sum(version.bad for version in failed[FILES_READ:])
    for version, found in _read(failed[:FILES_READ]):
        kinds.update(found or {})
        untold += version.bad if found is None else 0
    counts: Counter[str] = Counter()
    for kind, count in kinds.items():
        counts[redacted(kind)] += count
    return Reasons(counts=counts, untold=untold)


def _place(version: layout.Version) -> tuple[int, str]:
    """The most failures first; of equals those whose hashes are first, so that no shard is preferred."""
    return -version.bad, storage.short_hash(version.stem)


def _read(versions: Sequence[layout.Version]) -> Iterable[tuple[layout.Version, Counter[str] | None]]:
    uris = [version.errors_uri for version in versions]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        yield from zip(versions, pool.map(_reasons_in, uris), strict=True)


def _reasons_in(uri: str) -> Counter[str] | None:
    """The reasons in one file, got in one request; None where it is not there or cannot be understood."""
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(uri)))
        table = file.read(columns=COLUMNS, use_threads=False)
    except (FileNotFoundError, pa.ArrowException):
        return None
    counted = table.group_by(COLUMNS, use_threads=False).aggregate([([], "count_all")]).to_pylist()
    return reason_kinds(Counter({f"{row['stage']}: {row['reason']}": row["count_all"] for row in counted}))


REASONS_SHOWN = 8


NAMED_FILE = re.compile(r"(?<=cannot read )\S.*?: (?=\S)")


def reason_kinds(reasons: Counter[str]) -> Counter[str]:
    """Reasons without the particulars of one sample: the text up to the second colon or the first bracket.

    Of a file that cannot be read the name is left out, not what follows it.
    """
    kinds: Counter[str] = Counter()
    for reason, count in dict(reasons).items():
        text = NAMED_FILE.sub("a file, ", reason)
        kinds[":".join(text.split(" (")[0].split(":")[:2])] += count
    return kinds


def reasons_text(reasons: Counter[str]) -> str:
    """The commonest reasons, one a line, with counts."""
    lines = [f"    {count:>6}  {reason[:160]}" for reason, count in reasons.most_common(REASONS_SHOWN)]
    if len(reasons) > REASONS_SHOWN:
        lines.append(f"            and {len(reasons) - REASONS_SHOWN} other reasons")
    return "\n".join(lines)
