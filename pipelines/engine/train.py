# Ray declares its submodules and the context of a training too narrowly.
# pyright: reportAttributeAccessIssue=false
"""Training on a cluster with Ray Train: workers with a process group, their streams of batches, and their restarts.

Ray Train places and restarts the workers, all of them if one dies, and with a range of workers as many as fit. The
state of the training is not its business: every start of the workers loads the latest checkpoint of the work folder
(`pipelines.training.checkpoints`).

Tested in tests/pipelines/engine/test_train.py and tests/jobs/test_train_corpus.py.
"""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from pipelines.engine.step_stream import STEPS, Steps, StepStreams, StreamCpus, rows_of
from pipelines.errors import FlowError

POLL_S = 0.5
MAX_FAILURES = 3
"""How often workers may die for other reasons than preemption before the training stops."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """The workers of a training."""

    fewest: int = 1
    most: int = 1
    """If it is larger than `fewest`, the training runs with as many workers as fit, and adapts while it runs."""
    uses_gpus: bool = False
    """Whether every worker has a GPU."""
    max_failures: int = MAX_FAILURES

    def cpus_per_worker(self, cluster_cpus: float) -> float:
        """Return the CPUs of a worker, which leave half of the cluster to the stream of batches."""
        return min(1.0, cluster_cpus / (2 * self.most))

    def stream_cpus(self, cluster_cpus: float) -> StreamCpus:
        """Return the CPUs of the tasks of the stream."""
        workers = self.cpus_per_worker(cluster_cpus) * self.most
        return StreamCpus(workers=workers, a_task=min(1.0, (cluster_cpus - workers) / 2))


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a worker knows of the training."""

    rank: int
    world_size: int
    local_world_size: int
    """Number of workers on this machine."""
    rows: Iterator[pa.Table]
    """The worker's stream, see `StepReader`."""
    tell: Callable[[dict[str, Any]], None]
    """Sends an event to the command that waits for the training."""

    @staticmethod
    def is_preempted() -> bool:
        """Return whether a machine of the training is about to be taken away. Every worker asks at the same step."""
        return ray.train.get_preemption_info() is not None


Work = Callable[[Session], None]
"""What a worker does. It is called again if workers are restarted."""


def run_training(work: Work, steps: Steps, scaling: Scaling, on_event: Callable[[dict[str, Any]], None]) -> None:
    """Train with the workers that `scaling` describes, until `work` returns in all of them.

    Args:
        work: Runs in every worker, in a process group of torch.
        steps: The batches.
        scaling: The workers.
        on_event: Called with the events that workers tell, in this process.

    Raises:
        FlowError: Workers failed more often than allowed. The same command continues from the latest checkpoint.
    """
    mailbox = ray.remote(_Mailbox).options(num_cpus=0, max_concurrency=2).remote()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = _trainer(work, steps, scaling, mailbox, folder)
        fitting = _Fitting(trainer.fit)
        while not fitting.wait(POLL_S):
            _deliver(mailbox, on_event)
        _deliver(mailbox, on_event)
    if fitting.error is not None:
        raise FlowError(_cause(fitting.error)) from fitting.error


def _trainer(work: Work, steps: Steps, scaling: Scaling, mailbox: Any, folder: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    cpus = ray.cluster_resources().get("CPU", 1.0)
    each = {"CPU": scaling.cpus_per_worker(cpus), **({"GPU": 1} if scaling.uses_gpus else {})}
    return TorchTrainer(
        _Loop(work, mailbox),
        scaling_config=ScalingConfig(
            num_workers=scaling.most if scaling.fewest == scaling.most else (scaling.fewest, scaling.most),
            use_gpu=scaling.uses_gpus,
            resources_per_worker=each,
        ),
        run_config=RunConfig(
            name="training",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=scaling.max_failures, max_preemption_failures=-1),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
        datasets={STEPS: _placeholder},
        dataset_config=StepStreams(steps, scaling.stream_cpus(cpus)),
    )


def _placeholder() -> "ray.data.Dataset":
    """Return a dataset that is never read: `StepStreams` makes the streams when the number of workers is known."""
    return ray.data.range(1)


class _Loop:
    """The function of a worker."""

    def __init__(self, work: Work, mailbox: Any) -> None:
        self.work, self.mailbox = work, mailbox
        self.__name__ = "train"

    def __call__(self) -> None:
        context = ray.train.get_context()
        self.work(
            Session(
                rank=context.get_world_rank(),
                world_size=context.get_world_size(),
                local_world_size=context.get_local_world_size(),
                rows=rows_of(ray.train.get_dataset_shard(STEPS)),
                tell=lambda event: ray.get(self.mailbox.put.remote(event)),
            )
        )


class _Mailbox:
    """An actor with the events that the command has not read yet."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def take(self) -> list[dict[str, Any]]:
        events, self.events = self.events, []
        return events


def _deliver(mailbox: Any, on_event: Callable[[dict[str, Any]], None]) -> None:
    for event in ray.get(mailbox.take.remote()):
        on_event(event)


class _Fitting:
    """A call in a thread. Ray Train would take over SIGINT in the main thread, where the command handles it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end, and return whether it has come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error


def _cause(error: BaseException) -> str:
    """Return the error of the first worker that failed by itself, as one line."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    lines = [line.strip() for line in str(next(iter(failures.values()))).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the loggers of Ray Train and Ray Data in this process."""
    loggers = [logging.getLogger(name) for name in ("ray.train", "ray.data")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
