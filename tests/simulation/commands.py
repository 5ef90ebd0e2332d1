"""A simulated command: the real `run_job` in a thread, which can be killed and restarted."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from pipelines.dataset import layout
from pipelines.engine.blocks import Flow, ModelStage
from pipelines.engine.resources import Resources
from pipelines.errors import SettingError
from pipelines.readers.sources import ImageShards
from pipelines.runs.environment import Environment
from pipelines.runs.outcome import EXIT_ERROR_RATE
from pipelines.runs.progress import Progress
from pipelines.runs.request import Job, RunRequest
from pipelines.runs.runner import run_job
from pipelines.samples import Columns
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.storage.store import Store
from tests.simulation.executor import SimulatedExecutor
from tests.simulation.job import CopyText, JsonLines, Model
from tests.simulation.objects import BEGINNING
from tests.simulation.scheduler import Thread
from tests.simulation.world import World

KILLED = "killed"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The options of a command."""

    name: str
    limit: int | None = None
    since: int | None = None
    """A step; only shards that were written later are processed."""
    retry_errors: bool = False
    chunk_size: int = 4
    settings: int = 1
    """Number of the configuration."""
    workers: int = 2
    fails: tuple[str, ...] = ()
    """Keys whose rows always fail in this command."""
    restarts: int = 2
    """How many times the user restarts the command after it was killed."""

    @property
    def words(self) -> str:
        """Format the command as it would be typed."""
        options = [f"--limit {self.limit}"] if self.limit is not None else []
        options += [f"--since step {self.since}"] if self.since is not None else []
        options += ["--retry-errors"] if self.retry_errors else []
        options += [f"--chunk-size {self.chunk_size}"] if self.chunk_size != 4 else []
        options += [f"(fails: {', '.join(self.fails)})"] if self.fails else []
        options += [f"--setting {self.settings}"] if self.settings != 1 else []
        return " ".join([self.name, *options, f"({self.workers} workers)"])


class Run:
    """One process of a command and its workers."""

    def __init__(self, command: "Command", number: int) -> None:
        self.command = command
        self.name = command.spec.name + (str(number) if number > 1 else "")
        self.code: int | str | None = None
        """The exit code, KILLED, or the name of the exception that ended the run; None while it runs."""
        self.error: BaseException | None = None
        self.began = command.world.step
        self.ended = -1
        self.said: list[str] = []
        self.is_dead = False
        self.workers: list[Thread] = []
        self.driver = command.world.scheduler.spawn(self.name, self._drive)
        command.world.owners[self.driver] = self

    def employ(self, worker: Thread) -> None:
        """Register a worker thread of this process."""
        self.workers.append(worker)
        self.command.world.owners[worker] = self

    def die(self, spares_workers: bool) -> list[Thread]:
        """Mark the process as killed, let the user restart the command, and return the threads that die."""
        self.is_dead, self.code, self.ended = True, KILLED, self.command.world.step
        self.command.restart()
        return [self.driver] if spares_workers else [self.driver, *self.workers]

    def _drive(self) -> None:
        command = self.command
        self.began = command.world.step
        command.world.note(self.name, "begins", result=command.spec.words)
        try:
            code = command.job(self)
            self.code = 0 if code == EXIT_ERROR_RATE else code  # everything is done, and nothing succeeded
        except SettingError as error:
            self.code, self.error = 2, error
        except Exception as error:
            self.code, self.error = type(error).__name__, error
        self.is_dead, self.ended = True, command.world.step
        command.world.note(self.name, "ends", result=f"exit code {self.code}")


class Command:
    """A command of one user, restarted after kills."""

    def __init__(self, world: World, store: Store, spec: Spec, inputs: list[str], output: str) -> None:
        self.world = world
        self.store = store
        self.spec = spec
        self.inputs = inputs
        self.output = output
        self.runs: list[Run] = []

    @property
    def code(self) -> int | str | None:
        """Return the exit code of the last run."""
        return self.runs[-1].code

    def start(self) -> None:
        """Start another run."""
        run = Run(self, len(self.runs) + 1)
        self.runs.append(run)
        self.world.processes.append(run)

    def restart(self) -> None:
        """Start another run after a kill, unless `Spec.restarts` is used up."""
        if len(self.runs) <= self.spec.restarts:
            self.start()

    def job(self, run: Run) -> int:
        """Run the real job and return its exit code."""
        spec = self.spec
        source = ImageShards(columns=Columns(), store=self.store)
        task, rows = CopyText(), JsonLines()

        def make_flow(output: str, resources: Resources) -> Flow:
            compute = ComputeRows(task=task, model=Model(self._fails), run_seed=0, batch_size=8)
            return Flow(
                read=ReadRows(
                    task=task,
                    source=source,
                    published=partial(layout.is_published, output, extension=rows.extension, store=self.store),
                ),
                models=(ModelStage(model=compute),),
                publish=PublishRows(
                    output=output, task=task, provenance={"seed": 0}, row_format=rows, store=self.store
                ),
            )

        job = Job(
            name="copy",
            settings={"setting": spec.settings},
            source=source,
            make_flow=make_flow,
            finish=lambda *arguments: None,
            row_format=rows,
        )
        request = RunRequest(
            inputs=self.inputs,
            output=self.output,
            chunk_size=spec.chunk_size,
            limit=spec.limit,
            since=None if spec.since is None else BEGINNING + timedelta(seconds=spec.since),
            retry_errors=spec.retry_errors,
            max_error_rate=1.0,
        )
        return run_job(job, request, self._environment(run))

    def _environment(self, run: Run) -> Environment:
        return Environment(
            store=self.store,
            executor=SimulatedExecutor(
                world=self.world,
                name=run.name,
                workers=self.spec.workers,
                began=run.employ,
                is_dead=lambda: run.is_dead,
            ),
            now=lambda: BEGINNING + timedelta(seconds=self.world.step),
            new_id=lambda: f"{self.world.step:08x}",
            say=run.said.append,
            heartbeat=_no_heartbeat,
            new_progress=lambda total: Progress(total, stream=io.StringIO(), interval_s=1e6),
            afterwards=lambda output: None,
        )

    def _fails(self, key: str) -> bool:
        name = key.rsplit("/", 1)[-1].split(".", 1)[0]
        if self.world.rates.die:
            self.world.pause("sample")
        if name.startswith("k"):
            self.world.end_current(f"dies of {name}")
        if name.startswith("x") or name in self.spec.fails:
            return True
        rate = self.world.rates.flaky
        return bool(rate and self.world.decide(f"{name} fails", lambda rng: "yes" if rng.random() < rate else ""))


@contextmanager
def _no_heartbeat(beat: Callable[[], Any]) -> Iterator[None]:
    yield
