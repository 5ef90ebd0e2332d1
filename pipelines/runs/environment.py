"""The environment of a run: its storage, the executor of its chunks, its clock and its names.

`Environment()` is the real one. The simulation replaces parts of it, so that the same run can be interleaved, killed
and replayed.

Tested in tests/simulation/ and tests/pipelines/runs/test_exactly_once.py.
"""

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from pipelines import storage
from pipelines.engine.resources import Resources
from pipelines.errors import say
from pipelines.runs.overlap import HEARTBEAT_S
from pipelines.runs.placement import choose_resources, describe
from pipelines.runs.progress import Progress
from pipelines.runs.request import Job, RunRequest
from pipelines.samples import Chunk
from pipelines.storage.errors import redacted
from pipelines.storage.store import FILES, Store

STALE_S = 24 * 3600.0
"""A temporary file of this age no longer has a writer."""


Process = Callable[[Sequence[Chunk]], Iterator[dict[str, Any]]]
"""Processes chunks and yields the receipt of each as it is published; a chunk that fails has no receipt."""
Working = Callable[[Mapping[str, float], Resources], None]
"""Called with the resources of the cluster and those that the run uses."""


class Executor(Protocol):
    """Processes chunks."""

    def open(
        self, job: Job, request: RunRequest, output: str, working: Working, on_failure: Callable[[str], None]
    ) -> AbstractContextManager[Process]:
        """Return a context manager that yields the function that processes chunks.

        Args:
            job: The job.
            request: What the run was asked to do.
            output: The output root.
            working: Called when the resources are known.
            on_failure: Called with the reason why a chunk failed.

        Raises:
            SettingError: The cluster does not have the requested resources.
            FlowError: The run must stop; also raised while chunks are processed.
        """
        ...


@dataclass(frozen=True)
class RayExecutor:
    """Runs Ray Data on the cluster named by the environment variable RAY_ADDRESS, or on this machine."""

    @contextmanager
    def open(
        self, job: Job, request: RunRequest, output: str, working: Working, on_failure: Callable[[str], None]
    ) -> Iterator[Process]:
        from pipelines.engine.cluster import ray_session, working_nodes
        from pipelines.engine.gpu_meter import GpuTime

        say("starting Ray ...")
        with ray_session() as available:
            from pipelines.engine.flow import run_flow  # Ray Data takes seconds, in which Ray's first workers start

            resources = choose_resources(request, available, "RAY_ADDRESS" in os.environ, working_nodes())
            resources = replace(resources, samples=job.samples)
            working(available, resources)
            flow = job.make_flow(output, resources)
            limit_s = None if request.max_gpu_hours is None else request.max_gpu_hours * 3600
            gpu_time = GpuTime(limit_s=limit_s)

            def process(chunks: Sequence[Chunk]) -> Iterator[dict[str, Any]]:
                say(f"{len(chunks)} chunks on {describe(resources)}")
                yield from run_flow(chunks, flow, resources, on_failure, gpu_time)

            yield process


@contextmanager
def in_a_thread(beat: Callable[[], None], interval_s: float = HEARTBEAT_S) -> Iterator[None]:
    """Call `beat` at regular intervals while the body runs."""
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
    """Write the report page, and remove temporary files that killed writers left."""
    from pipelines.runs.report_page import write_report

    try:
        write_report(output)
        storage.remove_stale_temporaries(output, STALE_S)
    except OSError as error:
        say(f"report.html cannot be written: {redacted(str(error))}")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a run takes from outside; the defaults are the real implementations."""

    store: Store = FILES
    executor: Executor = field(default_factory=RayExecutor)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    new_id: Callable[[], str] = lambda: uuid.uuid4().hex[:8]
    """Returns hexadecimal digits that are unique to a run."""
    say: Callable[[str], None] = say
    """Prints a message for the user."""
    heartbeat: Callable[[Callable[[], None]], AbstractContextManager[None]] = in_a_thread
    """Calls a function at regular intervals while its body runs."""
    new_progress: Callable[[int], Progress] = Progress
    """Creates the progress display for this many samples."""
    afterwards: Callable[[str], None] = write_report_and_clean_up
    """Called with the output root after a run."""
