"""Threads of which exactly one runs at a time. Who goes on at each point is decided by one function, so the same
decisions give the same run.

A thread gives way only where it says so, by `give_way`, `wait` or its end; between two such points it is alone. A
killed thread raises Killed from its next point on, and from each one after that: nothing that its `finally` blocks do
can have an effect.
"""

import threading
from collections.abc import Callable, Sequence

JOIN_S = 10.0


class Killed(BaseException):  # noqa: N818 - no error: what a killed process feels
    """The process that this thread stands for is dead."""


class DeadlockError(Exception):
    """Every thread waits for something that no other one will do."""


class Thread:
    """One simulated thread of one simulated process."""

    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self.points = 0
        """Decisions that were taken at it so far: with the name it says where in a run something happens."""
        self.is_done = False
        self.is_killed = False
        self.error: BaseException | None = None
        """What its body raised, if anything but Killed."""
        self._body = body
        self._waits_for: Callable[[], bool] | None = None
        self._turn = threading.Lock()
        self._turn.acquire()

    @property
    def is_ready(self) -> bool:
        """Whether it can go on."""
        return not self.is_done and (self.is_killed or self._waits_for is None or self._waits_for())


Choose = Callable[[Thread | None, Sequence[Thread]], Thread]
"""(who gives way, waits or ends; None at the start. Who can go on: one at least, the oldest first) -> who goes on."""


def first_come(gives_way: Thread | None, ready: Sequence[Thread]) -> Thread:
    """Goes on with the same thread as long as that can, then with the oldest."""
    return ready[0] if gives_way is None or gives_way not in ready else gives_way


class Scheduler:
    """Runs threads one at a time. `choose` decides who goes on."""

    def __init__(self, choose: Choose = first_come) -> None:
        self.choose = choose
        self.current: Thread | None = None
        """Who runs; None outside of `run`."""
        self.threads: list[Thread] = []
        """Those that are not done."""
        self.switches = 0
        self._ended = threading.Lock()
        self._ended.acquire()

    def spawn(self, name: str, body: Callable[[], None]) -> Thread:
        """A new thread, which can go on from now on."""
        thread = Thread(name, body)
        self.threads.append(thread)
        threading.Thread(target=self._main, args=(thread,), daemon=True, name=name).start()
        return thread

    def ready(self) -> list[Thread]:
        """Who can go on. Killed threads come before all others: what is dead has no part in the interleaving."""
        killed = [thread for thread in self.threads if thread.is_killed]
        return killed or [thread for thread in self.threads if thread.is_ready]

    def check(self) -> None:
        """Raise Killed in a thread that is dead."""
        if self.current is not None and self.current.is_killed:
            raise Killed

    def give_way(self, to: Thread | None = None) -> None:
        """A point at which others may go on: `to`, if that can, else whom `choose` chooses."""
        thread = self.current
        if thread is None:
            return
        self.check()
        ready = self.ready()
        self._go_on(thread, to if to in ready else self.choose(thread, ready))

    def wait(self, until: Callable[[], bool]) -> None:
        """Let others go on until something holds."""
        thread = self.current
        if thread is None:
            if not until():
                raise DeadlockError("nobody is there to wait for")
            return
        self.check()
        if until():
            return
        thread._waits_for = until
        self._pass_turn(thread)
        thread._turn.acquire()
        thread._waits_for = None
        self.check()

    def kill(self, thread: Thread) -> None:
        """The thread does nothing more."""
        thread.is_killed = not thread.is_done

    def run(self) -> None:
        """Run until every thread is done.

        Raises:
            DeadlockError: no thread can go on. All of them are killed then.
        """
        stuck: list[str] = []
        while self.threads:
            ready = self.ready()
            if not ready:
                stuck = [thread.name for thread in self.threads]
                for thread in self.threads:
                    thread.is_killed = True
                ready = self.threads
            self.current = self.choose(None, ready)
            self.current._turn.release()
            self._ended.acquire()
        if stuck:
            raise DeadlockError(f"{', '.join(stuck)}: each waits for another")

    def _main(self, thread: Thread) -> None:
        thread._turn.acquire()
        try:
            self.check()
            thread._body()
        except Killed:
            pass
        except BaseException as error:  # whoever spawned it looks at it
            thread.error = error
        thread.is_done = True
        self.threads.remove(thread)
        self._pass_turn(thread)

    def _go_on(self, thread: Thread, chosen: Thread) -> None:
        if chosen is not thread:
            self.switches += 1
            self.current = chosen
            chosen._turn.release()
            thread._turn.acquire()
        self.check()

    def _pass_turn(self, thread: Thread) -> None:
        """To anyone, or to `run` where nobody can go on."""
        ready = self.ready()
        if not ready:
            self.current = None
            self._ended.release()
            return
        self.switches += 1
        self.current = self.choose(thread, ready)
        self.current._turn.release()
