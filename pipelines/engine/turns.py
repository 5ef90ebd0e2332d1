"""The attempts that run beside each other in one process: which one is in turn, and which must run alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count


class Turn:
    """The place of one attempt among those of its process."""

    def __init__(self, order: int) -> None:
        self.order = order
        """Smaller than that of attempts that came later."""
        self.on_first: Callable[[], None] | None = None


class Turns:
    """The attempts of a process, in the order in which they came.

    If a process dies, all its attempts are suspects. An attempt on a chunk that a process has died on therefore runs
    alone, so that its samples are not blamed for the deaths of others, and others are not blamed for its own.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active: list[Turn] = []
        self._alone = 0
        """Attempts that run alone, or wait to."""
        self._orders = count()

    @contextmanager
    def taken(self, alone: bool) -> Iterator[Turn]:
        """Enclose an attempt, and wait until it may start."""
        with self._changed:
            self._alone += alone
            self._changed.wait_for(lambda: not self._active if alone else not self._alone)
            turn = Turn(next(self._orders))
            self._active.append(turn)
        try:
            yield turn
        finally:
            with self._changed:
                self._active.remove(turn)
                self._alone -= alone
                self._changed.notify_all()
                if self._active and self._active[0].on_first is not None:
                    self._active[0].on_first()

    def when_first(self, turn: Turn, action: Callable[[], None] | None) -> None:
        """Call `action` once no older attempt is left, now or in the thread of the last one. For None, call nothing."""
        with self._changed:
            turn.on_first = action
            if action is not None and self._active[0] is turn:
                action()
