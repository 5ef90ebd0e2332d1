"""The settings of Ray Data for whole chunks and a quiet terminal. Tested in tests/pipelines/engine/test_flow.py."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.data import DataContext

from pipelines.engine.resources import Resources

NO_PROGRESS_TIMEOUTS = 5
"""No-progress limit of a run, as a multiple of the chunk timeout; a sample that hangs is found after three of them."""

OnFailure = Callable[[BaseException], None]


@contextmanager
def data_context(resources: Resources, on_failure: OnFailure) -> Iterator[None]:
    """Apply the settings of Ray Data in the body, and restore the caller's settings afterwards.

    Args:
        resources: The limits of the run.
        on_failure: Called with the exception of each chunk that `resources` allows to fail.
    """
    context = DataContext.get_current()
    ours = _settings(resources, context.execution_no_progress_timeout_s)
    before = {name: getattr(context, name) for name in ours}
    try:
        for name, value in ours.items():
            setattr(context, name, value)
        with _only_failures_logged(on_failure):
            yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _settings(resources: Resources, no_progress_timeout_s: float) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "target_max_block_size": None,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": resources.failed_chunks_allowed,
    }
    if resources.chunk_timeout_s is not None and no_progress_timeout_s > 0:
        limit_s = max(no_progress_timeout_s, NO_PROGRESS_TIMEOUTS * resources.chunk_timeout_s)
        settings["execution_no_progress_timeout_s"] = limit_s
    return settings


@contextmanager
def _only_failures_logged(on_failure: OnFailure) -> Iterator[None]:
    """Silence the terminal handlers of Ray Data's logger in the body, and listen for failures."""
    logger = logging.getLogger("ray.data")
    consoles = [handler for handler in logger.handlers if isinstance(handler, logging.StreamHandler)]
    consoles = [handler for handler in consoles if not isinstance(handler, logging.FileHandler)]
    levels = [handler.level for handler in consoles]
    listener = _FailureListener(on_failure)
    try:
        for handler in consoles:
            handler.setLevel(logging.CRITICAL + 1)
        logger.addHandler(listener)
        yield
    finally:
        logger.removeHandler(listener)
        for handler, level in zip(consoles, levels, strict=True):
            handler.setLevel(level)


class _FailureListener(logging.Handler):
    """Reports failed blocks that Ray Data ignores because `max_errored_blocks` allows it.

    Ray Data has no interface that names them: it reports them in its log and nowhere else.
    """

    def __init__(self, on_failure: OnFailure) -> None:
        super().__init__(logging.ERROR)
        self.on_failure = on_failure

    def emit(self, record: logging.LogRecord) -> None:
        if "Ignoring this exception" in record.getMessage() and record.exc_info and record.exc_info[1]:
            self.on_failure(record.exc_info[1])
