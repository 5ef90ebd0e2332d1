"""What becomes of a chunk whose worker died or hung: who is to blame, and how the rest is saved.

Ray gives a task whose process died to another process, for ever. So each stage of a chunk is an attempt that a ledger,
in a process of its own, knows of before it starts:

1. The first attempt does the chunk as a whole.
2. After a death the chunk is done one sample at a time, each noted before it is worked on, those that died before
   first. (A death costs the loading of a model: halving would take log2(n) of them to find what one pass finds.)
3. A sample on which, alone, the process died LONE_DEATHS times is given up: an error row, and the rest goes on. A
   single death, such as that of a preempted machine, gives up nothing; one whose node is lost does not even count.
4. Where it is not the samples the chunk fails, loudly: OTHER_DEATHS deaths outside of any sample, a worker that lost
   GIVEN_UP_IN_A_ROW samples and got none through in between, or a result lost more than RESULTS_LOST times.

A process that works longer than the time limit, on a chunk or on one sample of rule 2, is ended: a death like others.
It ends itself; one that is stopped cannot, and the kernel ends it (`lifeline.py`).
No Ray here: `flow.py` puts the ledger into an actor and says how it is asked.
"""

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.engine.ledger import BUILD_DEATHS, Orders
from pipelines.engine.watchdog import Watchdog, _end_when_frozen
from pipelines.errors import SampleError

Ask = Callable[..., Any]
"""`ask(method, *arguments)`: calls a method of the ledger wherever it lives, and waits for its answer."""


class WorkerDeathError(RuntimeError):
    """Processes died again and again, and no sample can be blamed."""


class BrokenProcessError(RuntimeError):
    """This process can be trusted no longer, whatever it works on: raised inside of an attempt, it ends the process."""


class Attempt:
    """One try at a stage of a chunk, as the stage sees it. Without a ledger: the first, which nobody watches."""

    def __init__(self, stage: str = "", orders: Orders | None = None, note: Callable[..., None] | None = None) -> None:
        self.stage = stage
        self.orders = orders or Orders()
        self._note = note or (lambda *words: None)
        """`note(position)` before a sample, `note()` after it."""

    @property
    def one_by_one(self) -> bool:
        """Whether samples must be worked on alone, each inside `on`."""
        return self.orders.one_by_one

    def in_order(self, positions: Iterable[int]) -> list[int]:
        """The positions, those that a process died on first: a further death then costs no other sample's work."""
        return sorted(positions, key=lambda position: (position not in self.orders.first, position))

    @contextmanager
    def on(self, position: int) -> Iterator[None]:
        """Around the work on one sample.

        Raises:
            SampleError: it was given up.
        """
        if position in self.orders.given_up:
            raise SampleError(self.stage, self.orders.given_up[position])
        if not self.one_by_one:
            yield
            return
        self._note(position)
        try:
            yield
        except BrokenProcessError:
            raise  # it did not come through
        except Exception:
            self._note()
            raise
        self._note()


@contextmanager
def watched(
    ask: Ask,
    stage: str,
    chunk: str,
    *,
    worker: str,
    node: str,
    failed_before: bool = False,
    limit_s: float | None = None,
) -> Iterator[Attempt]:
    """Around a stage of a chunk, in a worker.

    worker: what a dead process's successor shares with it: the actor, or the machine of a task.
    failed_before: see `Ledger.begin`.

    Raises:
        WorkerDeathError: this chunk was tried often enough.
    """
    _end_when_frozen(limit_s)
    orders: Orders = ask("begin", stage, chunk, worker, node, failed_before)
    if orders.hopeless:
        raise WorkerDeathError(f"{stage} of {chunk}: {orders.hopeless}")
    this = (stage, chunk, orders.number)
    watchdog = Watchdog(limit_s, lambda text: ask("last_words", *this, text))

    def note(position: int | None = None) -> None:
        ask(*(("came_through", *this) if position is None else ("works_on", *this, position)))
        watchdog.start()

    well = False
    watchdog.start()
    try:
        yield Attempt(stage, orders, note)
        well = True
    except BrokenProcessError as broken:
        traceback.print_exc()
        ask("last_words", *this, str(broken))
        os._exit(1)
    finally:
        watchdog.stop()
        ask("end", *this, well)


@contextmanager
def building(ask: Ask, worker: str, limit_s: float | None = None) -> Iterator[None]:
    """Around the loading of a model, in its actor, which Ray restarts for ever.

    limit_s: an actor that is stopped for longer is ended, now or later; loading may take as long as it likes.

    Raises:
        WorkerDeathError: the process died of it BUILD_DEATHS times.
    """
    _end_when_frozen(limit_s)
    deaths = ask("build_begins", worker)
    try:
        if deaths >= BUILD_DEATHS:
            raise WorkerDeathError(f"the worker process died {deaths} times while it loaded the model")
        yield
    finally:
        ask("build_ends", worker)
