"""Planning and reading of whole inputs, and checks that no sample is lost."""

from collections.abc import Sequence
from pathlib import Path

from pipelines.dataset.layout import Listing
from pipelines.errors import MAX_REASON_CHARS
from pipelines.planning.plan import make_plan
from pipelines.readers.sources import Source
from pipelines.samples import Chunk, Sample
from tests.support.estimating import Ran


def read_all(source: Source, path: Path, chunk_size: int = 10) -> list[Sample]:
    """Plan and read; every position must come exactly once."""
    output = str(path.parent / "out")
    measured = source.measure(source.find([str(path)], output), output, None)
    found: list[Sample] = []
    for chunk in make_plan(measured, Listing(finished=(), remains=()), "c" * 16, chunk_size).chunks:
        part = list(source.read(Chunk.from_json(chunk.to_json())))
        assert tuple(sample.position for sample in part) == chunk.positions
        found += part
    return found


def reasons(found: Sequence[Sample]) -> list[str]:
    return ["" if sample.problem is None else sample.problem.reason for sample in found]


def assert_all_accounted(ran: Ran, samples: int) -> None:
    """Every sample is in data/ or errors/, no chunk failed, and every reason is one short line."""
    assert not [line for line in ran.said if "chunk failed" in line or "not finished" in line or "stopped" in line]
    assert len(ran.rows) + len(ran.errors) == samples
    for error in ran.errors:
        assert error["reason"] and len(error["reason"]) <= MAX_REASON_CHARS and error["reason"].isprintable()
