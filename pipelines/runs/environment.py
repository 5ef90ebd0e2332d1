"""The world that a run works in: its storage, what processes its chunks, its clock and its names.

`Environment()` is the real world. The simulation gives others, so that the same run can be interleaved, killed and
replayed (`tests/simulation`).
"""

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from pipelines import storage
from pipelines.runs.placement import choose_resources, describe
from pipelines.runs.progress import Progress
from pipelines.texts import say
from pipelines.runs.request import Job, Request
from pipelines.engine.resources import Resources
from pipelines.samples import Chunk
from pipelines.storage.errors import redacted
from pipelines.storage.store import FILES, Store
from pipelines.runs.overlap import HEARTBEAT_S
STALE_S = 24 * 3600.0
"""A temporary file that old has no writer any more."""


Process = Callable[[Sequence[Chunk]], Iterator[dict[str, Any]]]
"""Processes chunks and yields the receipt of each one as it is published; a chunk that fails has none."""


Working = Callable[[Mapping[str, float], Resources], None]
"""Told what the cluster has, and what of it the run takes."""


class Executor(Protocol):
    """What processes chunks."""

    def open(
        self, job: Job, request: Request, output: str, working: Working, on_failure: Callable[[str], None]
    ) -> AbstractContextManager[Process]:
        """Inside, chunks can be processed; `on_failure` is told why a chunk has failed.

        Raises:
            SettingError: the cluster does not have what was asked for.
            FlowError: the run must stop; also raised while chunks are processed.
        """
        ...


@dataclass(frozen=True)
class RayExecutor:
    """Ray Data, on the cluster that the environment names or on this machine."""

    @contextmanager
    def open(
        self, job: Job, request: Request, output: str, working: Working, on_failure: Callable[[str], None]
    ) -> Iterator[Process]:
        from pipelines.engine.cluster import ray_session, working_nodes
        from pipelines.engine.flow import run_flow

        say("starting Ray ...")
        with ray_session() as available:
            resources = choose_resources(request, available, "RAY_ADDRESS" in os.environ, working_nodes())
            working(available, resources)
            flow = job.make_flow(output, resources)

            def process(chunks: Sequence[Chunk]) -> Iterator[dict[str, Any]]:
                say(f"{len(chunks)} chunks on {describe(resources)}")
                yield from run_flow(chunks, flow, resources, on_failure)

            yield process


@contextmanager
def in_a_thread(beat: Callable[[], None], interval_s: float = HEARTBEAT_S) -> Iterator[None]:
    """Inside, `beat` is called now and then."""
    stop = threading.Event()

    def keep_beating() -> None:
        while not stop.wait(interval_s):
            beat()

    thread = threading.Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def write_report_and_clean_up(output: str) -> None:
    """The report page; and what killed writers have left long ago goes."""
    from pipelines.runs.report_page import write_report

    try:
        write_report(output)
        storage.remove_stale_temporaries(output, STALE_S)
    except OSError as error:
        say(f"report.html cannot be written: {redacted(str(error))}")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a run takes from outside; the defaults are the real thing."""

    store: Store = FILES
    executor: Executor = field(default_factory=RayExecutor)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex[:8]
    """Hexadecimal digits that no other run gets."""
    say: Callable[[str], None] = say
    """Tells the person at the terminal."""
    heartbeat: Callable[[Callable[[], None]], AbstractContextManager[None]] = in_a_thread
    """Calls a function now and then while its body runs."""
    new_progress: Callable[[int], Progress] = Progress
    """Counts this many samples for people."""
    afterwards: Callable[[str], None] = write_report_and_clean_up
    """Called with the output root when a run has ended."""
