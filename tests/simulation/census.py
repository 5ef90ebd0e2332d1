"""Compare an output with what it must hold: every sample once, with its current content and correct marks.

This module parses names and files itself, independently of the code that wrote them.
"""

import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import pyarrow.parquet as pq

from pipelines import storage
from pipelines.dataset.marks import TOMBSTONE
from tests.simulation.contents import content
from tests.simulation.job import read_lines

Sample = tuple[str, str]
"""(shard URI, key)"""
STEM = re.compile(
    r".*-(?P<shard>[0-9a-f]{16})-[0-9a-f]{16}-\d+-\d+-(?P<configuration>[0-9a-f]{16})-[0-9a-f]{16}"
    r"\.ok(?P<ok>\d+)\.bad(?P<bad>\d+)(?:\.wait(?P<wait>\d+))?"
)


@dataclass(frozen=True, kw_only=True)
class Census:
    """Counts of what is wrong; all are zero for a correct output."""

    lost: int = 0
    """Samples without a row."""
    duplicated: int = 0
    """Rows of a sample beyond its first."""
    foreign: int = 0
    """Rows of samples that are not in the shard."""
    stale: int = 0
    """Rows made from content that the sample no longer has."""
    mismatched: int = 0
    """Marks whose files do not hold exactly the rows that the mark counts, and files without a mark."""
    mixed: int = 0
    """Configurations beyond the first."""

    @property
    def wrong(self) -> list[str]:
        """Return the names of the counts that are not zero."""
        return [field.name for field in fields(self) if getattr(self, field.name)]


def census(
    files: Mapping[str, bytes],
    output: str,
    shards: Collection[str],
    expected: Mapping[Sample, int],
    may_stay: Collection[Sample] = (),
    required: Collection[Sample] | None = None,
) -> Census:
    """Count the rows of some shards.

    Args:
        files: Content by URI of everything in the storage.
        output: URI of the output.
        shards: URIs of the shards.
        expected: Version of the content, by sample.
        may_stay: Samples that may have a row although they are not expected.
        required: Samples that must have a row; None means all expected samples.
    """
    have: Counter[Sample] = Counter()
    stale = 0
    for row in rows(files, output, "data"):
        sample = row["shard"], row["key"]
        if row["shard"] in shards:
            have[sample] += 1
            key = row["key"].removesuffix(".jpg")
            stale += sample in expected and row["value"].encode() != content(key, expected[sample])
    have.update((row["shard"], row["key"]) for row in rows(files, output, "errors") if row["shard"] in shards)
    wanted = set(expected if required is None else required)
    return Census(
        lost=len(wanted - have.keys()),
        duplicated=sum(count - 1 for count in have.values()),
        foreign=sum(1 for sample in have if sample not in expected and sample not in may_stay),
        stale=stale,
        mismatched=sum(1 for _ in mismatched(files, output, {storage.short_hash(shard) for shard in shards})),
        mixed=max(len(configurations(files, output)) - 1, 0),
    )


def rows(files: Mapping[str, bytes], output: str, folder: str) -> Iterator[dict[str, Any]]:
    """Yield every row below data/ or errors/."""
    for uri, body in files.items():
        if uri.startswith(f"{output}/{folder}/"):
            yield from _rows(uri, body)


def configurations(files: Mapping[str, bytes], output: str) -> set[str]:
    """Return the configuration hashes in the names of the published files."""
    stems = (uri.rsplit("/", 1)[-1] for uri in files if _is_published(uri, output))
    return {match["configuration"] for stem in stems if (match := STEM.match(stem))}


def mismatched(files: Mapping[str, bytes], output: str, shards: Collection[str]) -> Iterator[str]:
    """Yield marks and files that do not match, for shards given by the hashes of their URIs."""
    told: set[str] = set()
    others: list[str] = []
    for uri in files:
        match = STEM.match(uri.rsplit("/", 1)[-1]) if _is_published(uri, output) else None
        if match is None or match["shard"] not in shards:
            continue
        if "/_chunks/done/" not in uri:
            others.append(uri)
            continue
        if files[uri] == TOMBSTONE:
            continue
        data, errors = f"{output}/data/{match[0]}.jsonl", f"{output}/errors/{match[0]}.parquet"
        told |= {data, errors}
        told_counts = int(match["ok"]), int(match["bad"]), int(match["wait"] or 0)
        waiting = sum(row.get("stage") == "fetch" for row in _rows(errors, files[errors])) if errors in files else 0
        if told_counts != (_count(files, data), _count(files, errors), waiting):
            yield uri
    yield from (uri for uri in others if uri not in told)


def _is_published(uri: str, output: str) -> bool:
    if uri.endswith(".tmp"):  # left behind by a killed writer; no listing shows it
        return False
    return uri.startswith((f"{output}/data/", f"{output}/errors/", f"{output}/_chunks/done/"))


def _count(files: Mapping[str, bytes], uri: str) -> int:
    return len(_rows(uri, files[uri])) if uri in files else 0


def _rows(uri: str, body: bytes) -> tuple[dict[str, Any], ...]:
    return _parsed(uri.rsplit(".", 1)[-1], body)


@lru_cache(2000)
def _parsed(extension: str, body: bytes) -> tuple[dict[str, Any], ...]:
    try:
        if extension == "jsonl":
            return tuple(read_lines(body))
        if extension == "parquet":
            return tuple(pq.read_table(io.BytesIO(body)).to_pylist())
    except (ValueError, OSError):  # torn
        return ()
    return ()
