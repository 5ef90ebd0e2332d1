"""A deterministic scheduler for threads, of which exactly one runs at a time.

One function decides which thread continues at each point, so the same decisions give the same run. A thread yields only
in `give_way`, `wait` and at its end, and runs alone between two such points. A killed thread raises Killed at its next
point and at every later one, so that its `finally` blocks have no effect.
"""

import threading
from collections.abc import Callable, Sequence

JOIN_S = 10.0


class Killed(BaseException):  # noqa: N818 - not an error, but the end of a process
    """Raised in a thread whose simulated process is dead."""


class DeadlockError(Exception):
    """Raised when every thread waits for another one."""


class Thread:
    """One simulated thread of one simulated process."""

    def __init__(self, name: str, body: Callable[[], object]) -> None:
        self.name = name
        self.points = 0
        """Number of decisions made in this thread; with the name it identifies a point of a run."""
        self.is_done = False
        self.is_killed = False
        self.error: BaseException | None = None
        """The exception that its body raised, other than Killed."""
        self._body = body
        self._waits_for: Callable[[], bool] | None = None
        self._turn = threading.Lock()
        self._turn.acquire()

    @property
    def is_ready(self) -> bool:
        """Return whether the thread can continue."""
        return not self.is_done and (self.is_killed or self._waits_for is None or self._waits_for())


Choose = Callable[[Thread | None, Sequence[Thread]], Thread]
"""Chooses the thread that continues.

The arguments are the thread that yields, waits or ends (None at the start), and the threads that can continue, of which
there is at least one, oldest first.
"""


def first_come(gives_way: Thread | None, ready: Sequence[Thread]) -> Thread:
    """Continue with the same thread while possible, then with the oldest one."""
    return ready[0] if gives_way is None or gives_way not in ready else gives_way


class Scheduler:
    """Runs threads one at a time; `choose` decides which one continues."""

    def __init__(self, choose: Choose = first_come) -> None:
        self.choose = choose
        self.current: Thread | None = None
        """The running thread; None outside of `run`."""
        self.threads: list[Thread] = []
        """Threads that are not done."""
        self.switches = 0
        self._ended = threading.Lock()
        self._ended.acquire()

    def spawn(self, name: str, body: Callable[[], object]) -> Thread:
        """Start a thread, which is ready immediately."""
        thread = Thread(name, body)
        self.threads.append(thread)
        threading.Thread(target=self._main, args=(thread,), daemon=True, name=name).start()
        return thread

    def ready(self) -> list[Thread]:
        """Return the threads that can continue; killed threads finish first, so they do not affect the interleaving."""
        killed = [thread for thread in self.threads if thread.is_killed]
        return killed or [thread for thread in self.threads if thread.is_ready]

    def check(self) -> None:
        """Raise Killed if the current thread is dead."""
        if self.current is not None and self.current.is_killed:
            raise Killed

    def give_way(self, to: Thread | None = None) -> None:
        """Let another thread continue: `to` if it is ready, else the one that `choose` returns."""
        thread = self.current
        if thread is None:
            return
        self.check()
        ready = self.ready()
        self._go_on(thread, to if to in ready else self.choose(thread, ready))

    def wait(self, until: Callable[[], bool]) -> None:
        """Let other threads continue until a condition holds."""
        thread = self.current
        if thread is None:
            if not until():
                raise DeadlockError("there is no other thread to wait for")
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
        """Kill a thread, which has no further effects."""
        thread.is_killed = not thread.is_done

    def run(self) -> None:
        """Run until every thread is done.

        Raises:
            DeadlockError: No thread can continue; all of them are killed.
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
        except BaseException as error:  # checked by the code that spawned the thread
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
        """Pass the turn to a ready thread, or to `run` if there is none."""
        ready = self.ready()
        if not ready:
            self.current = None
            self._ended.release()
            return
        self.switches += 1
        self.current = self.choose(thread, ready)
        self.current._turn.release()
