"""What happens to a chunk whose worker died or hung: find the sample to blame, and save the rest of the chunk.

When the process of a task dies, Ray gives the task to another process, without limit. Therefore each attempt at a stage
of a chunk is registered, before it starts, in a ledger that lives in a process of its own:

1. The first attempt processes the chunk as a whole.
2. After a death the chunk is processed one sample at a time. Each sample is noted in the ledger before the work on it
   starts; samples that a process died on come first. (Every death costs the loading of a model, and bisecting the chunk
   would take log2(n) deaths to find what one pass finds.)
3. A sample on which the process died MAX_DEATHS_PER_SAMPLE times, while it worked on nothing else, becomes an error row
   and the rest of the chunk continues. A single death, such as that of a preempted machine, gives up no sample, and the
   death of a lost node is not counted at all.
4. If the samples are not to blame, the chunk fails: after MAX_OTHER_DEATHS deaths outside of any sample, if a worker
   lost MAX_SAMPLES_LOST_IN_A_ROW samples and completed none in between, or if a result was lost more than
   MAX_RESULTS_LOST times.

A process that exceeds the time limit, on a chunk or on one sample under rule 2, is ended, which counts as a death. It
ends itself; a stopped process cannot, so the kernel kills it (`kernel_timer.py`).
An actor may work on two chunks at a time. Its clock is that of the older one, and a chunk on which a process died is
processed alone (`turns.py`), so that rule 3 holds.
Ray is not used here: `ledger_client.py` runs the ledger in an actor and calls it.
"""

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.engine.ledger import MAX_BUILD_DEATHS, AttemptPlan
from pipelines.engine.turns import Turns
from pipelines.engine.watchdog import Watchdog, kill_when_frozen_later
from pipelines.errors import SampleError

Ask = Callable[..., Any]
"""`ask(method, *arguments)`: calls a method of the ledger, wherever it lives, and waits for its answer."""


class WorkerDeathError(RuntimeError):
    """Processes died again and again, and no sample can be blamed."""


class BrokenProcessError(RuntimeError):
    """This process can no longer be trusted, whatever it works on; raised inside an attempt, it ends the process."""


class Attempt:
    """One attempt at a stage of a chunk, as the stage sees it. Without arguments: a first attempt without a ledger."""

    def __init__(
        self, stage: str = "", plan: AttemptPlan | None = None, note: Callable[..., None] | None = None, order: int = 0
    ) -> None:
        self.stage = stage
        self.order = order
        """Its place among the attempts of this process; the work of the lowest one comes first."""
        self.plan = plan or AttemptPlan()
        self._note = note or (lambda *position: None)
        """Called as `note(position)` before a sample and as `note()` after it."""

    @property
    def one_by_one(self) -> bool:
        """Whether the samples must be processed one at a time, each inside `on`."""
        return self.plan.one_by_one

    def in_order(self, positions: Iterable[int]) -> list[int]:
        """Put the positions on which a process died first, so that another death costs no other sample's work."""
        return sorted(positions, key=lambda position: (position not in self.plan.first, position))

    @contextmanager
    def on(self, position: int) -> Iterator[None]:
        """Enclose the work on one sample.

        Raises:
            SampleError: The sample was given up.
        """
        if position in self.plan.given_up:
            raise SampleError(self.stage, self.plan.given_up[position])
        if not self.one_by_one:
            yield
            return
        self._note(position)
        try:
            yield
        except BrokenProcessError:
            raise  # the sample is not done
        except Exception:
            self._note()
            raise
        self._note()


@contextmanager
def supervised(
    ask: Ask,
    stage: str,
    chunk: str,
    *,
    worker: str,
    node: str,
    failed_before: bool = False,
    limit_s: float | None = None,
    turns: Turns | None = None,
) -> Iterator[Attempt]:
    """Enclose a stage of a chunk, in a worker. Arguments without a word here are those of `Ledger.begin`.

    The process is ended if the attempt takes longer than `limit_s`, not counting the time until older attempts among
    the `turns` of the process have ended.

    Raises:
        WorkerDeathError: The processes of this chunk have died too often.
    """
    kill_when_frozen_later(limit_s)
    turns, alone = turns or Turns(), turns is not None and ask("has_died", stage, chunk)
    with turns.taken(alone) as turn:
        plan: AttemptPlan = ask("begin", stage, chunk, worker, node, failed_before)
        if plan.failure:
            raise WorkerDeathError(f"{stage} of {chunk}: {plan.failure}")
        this = (stage, chunk, plan.number)
        watchdog = Watchdog(limit_s, lambda text: ask("set_exit_reason", *this, text))
        succeeded = False
        turns.when_first(turn, watchdog.start)
        try:
            yield Attempt(stage, plan, _note_to(ask, this, watchdog), turn.order)
            succeeded = True
        except BrokenProcessError as broken:
            traceback.print_exc()
            ask("set_exit_reason", *this, str(broken))
            os._exit(1)
        finally:
            turns.when_first(turn, None)
            watchdog.stop()
            ask("end", *this, succeeded)


def _note_to(ask: Ask, attempt: tuple[str, str, int], watchdog: Watchdog) -> Callable[..., None]:
    """Return the `note` of an `Attempt`: it tells the ledger and restarts the clock of the watchdog."""

    def note(position: int | None = None) -> None:
        if position is None:
            ask("sample_done", *attempt)
        else:
            ask("sample_started", *attempt, position)
        watchdog.start()

    return note


@contextmanager
def building(ask: Ask, worker: str, limit_s: float | None = None, gpus: float = 0.0) -> Iterator[None]:
    """Enclose the loading of a model, in its actor, which Ray restarts without limit.

    Args:
        ask: Calls the ledger.
        worker: The actor.
        limit_s: An actor whose process is stopped for longer is killed, now or later; loading itself may take any time.
        gpus: The GPUs that the actor holds.

    Raises:
        WorkerDeathError: The process died MAX_BUILD_DEATHS times while it loaded the model.
    """
    kill_when_frozen_later(limit_s)
    deaths = ask("build_started", worker, gpus)
    try:
        if deaths >= MAX_BUILD_DEATHS:
            raise WorkerDeathError(f"the worker process died {deaths} times while it loaded the model")
        yield
    finally:
        ask("build_done", worker)
