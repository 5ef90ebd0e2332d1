"""The executor of a simulated command: a few workers, each a thread, and the real ledger of attempts.

Like Ray, it restarts a stage of a chunk elsewhere when its worker dies, without a limit, and repeats a chunk whose
result was lost. A chunk that fails is reported and skipped.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pipelines.engine.attempts import building, supervised
from pipelines.engine.blocks import Flow, check_block
from pipelines.engine.ledger import Ledger
from pipelines.engine.resources import Resources
from pipelines.errors import FlowError
from pipelines.samples import Chunk
from tests.simulation.scheduler import Killed, Thread
from tests.simulation.world import World

FAILED_CHUNKS_ALLOWED = 3
GHOST_TASKS = 2
"""Number of tasks that a worker still starts after the death of its command."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One stage of one chunk."""

    chunk: Chunk
    stage: str = "read"
    block: Any = None
    """Result of the previous stage."""


@dataclass(frozen=True, kw_only=True)
class SimulatedExecutor:
    """Executor with the workers of one command."""

    world: World
    name: str
    """Name of the command; its workers are named NAME.1, NAME.2, ..."""
    workers: int
    began: Callable[[Thread], None]
    """Called with every new worker."""
    is_dead: Callable[[], bool]
    """Returns whether the command was killed."""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    """Numbers for the worker processes, each used once."""

    @contextmanager
    def open(
        self,
        job: Any,
        request: Any,
        output: str,
        working: Callable[..., None],
        on_failure: Callable[[str], None],
    ) -> Iterator[Callable[[Sequence[Chunk]], Iterator[dict[str, Any]]]]:
        """See `pipelines.runs.environment.Executor`."""
        flow = job.make_flow(output, Resources())
        working({"CPU": float(self.workers)}, Resources(actors=self.workers))
        yield lambda chunks: _Crew(self, flow, on_failure).process(chunks)


class _Crew:
    """The workers that process a list of chunks."""

    def __init__(self, executor: SimulatedExecutor, flow: Flow, on_failure: Callable[[str], None]) -> None:
        self.executor = executor
        self.world = executor.world
        self.flow = flow
        self.stages = ("read", *(stage.name for stage in flow.models), "publish")
        self.on_failure = on_failure
        self.ledger = Ledger()
        self.queue: list[Task] = []
        self.receipts: list[Mapping[str, Any]] = []
        self.left = 0
        self.failed = 0
        self.trouble = ""

    def process(self, chunks: Sequence[Chunk]) -> Iterator[dict[str, Any]]:
        """Yield the receipts of the chunks as they are published."""
        self.queue = [Task(chunk=chunk) for chunk in chunks]
        self.left = len(self.queue)
        for _ in range(min(self.executor.workers, self.left)):
            self._spawn()
        while True:
            self.world.scheduler.wait(lambda: bool(self.receipts or self.trouble or self.left == 0))
            if self.receipts:
                yield dict(self.receipts.pop(0))
            elif self.trouble:
                raise FlowError(self.trouble)
            else:
                return

    def _spawn(self, actor: str = "") -> None:
        """Start a process for a new actor, or for one whose process has died."""
        name = f"{self.executor.name}.{next(self.executor.numbers)}"
        actor = actor or name
        taken: list[Task] = []

        def body() -> None:
            try:
                self._work(actor, taken)
            except Killed:
                self._replace(actor, taken)
                raise
            except Exception as error:  # the model could not be built
                self.trouble = f"{type(error).__name__}: {error}"

        self.executor.began(self.world.scheduler.spawn(name, body))

    def _replace(self, actor: str, taken: list[Task]) -> None:
        """Start a process in place of a dead one, and put its task at the front of the queue."""
        if not self.executor.is_dead():
            self.queue[:0] = taken
            self._spawn(actor)

    def _work(self, actor: str, taken: list[Task]) -> None:
        ghost_tasks = GHOST_TASKS
        with building(self._ask, actor):
            self.world.pause("build")
            models = {stage.name: stage.model.build() for stage in self.flow.models}
        while self.left and not self.trouble:
            self.world.scheduler.wait(
                lambda: bool(self.queue or self.trouble or self.left == 0 or self.executor.is_dead())
            )
            if self.executor.is_dead():
                ghost_tasks -= 1
            if not self.queue or ghost_tasks < 0:
                break
            taken.append(self.queue.pop(0))
            self._do(taken[0], actor, models)
            taken.clear()

    def _do(self, task: Task, actor: str, models: Mapping[str, Any]) -> None:
        try:
            result = self._stage(task, actor, models)
        except Exception as error:
            self.left -= 1
            self.failed += 1
            self.world.note(actor, "chunk fails", task.chunk.name, str(error))
            self.on_failure(f"{type(error).__name__}: {error}")
            if self.failed > FAILED_CHUNKS_ALLOWED:
                self.trouble = f"{type(error).__name__}: {error}"
            return
        forgotten = self.world.decide("result", self._draw_result)
        if forgotten:
            self.world.note(actor, "result lost", task.chunk.name, forgotten)
            self.queue.append(task if forgotten == "again" else Task(chunk=task.chunk))
        elif task.stage == "publish":
            self.receipts.append(result)
            self.left -= 1
        else:
            following = self.stages[self.stages.index(task.stage) + 1]
            self.queue.insert(0, Task(chunk=task.chunk, stage=following, block=result))

    def _stage(self, task: Task, actor: str, models: Mapping[str, Any]) -> Any:
        worker = actor if task.stage in models else "node"
        failed_before = bool(task.chunk.only)
        with supervised(
            self._ask, task.stage, task.chunk.name, worker=worker, node="node", failed_before=failed_before
        ) as attempt:
            if task.stage == "read":
                return self.flow.read(task.chunk, attempt)
            if task.stage == "publish":
                return self.flow.publish(task.chunk, task.block, attempt)
            self.world.pause("compute")
            block = models[task.stage](task.chunk, task.block, attempt)
            check_block(task.chunk, block)
            return block

    def _ask(self, method: str, *arguments: Any) -> Any:
        self.world.scheduler.check()
        return getattr(self.ledger, method)(*arguments)

    def _draw_result(self, rng: random.Random) -> str:
        if rng.random() >= self.world.rates.forget:
            return ""
        return rng.choice(("again", "from the start"))
