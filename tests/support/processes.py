"""Inspection of other processes."""

from contextlib import suppress

import psutil


def title(process: psutil.Process) -> str:
    """Return the title of a process, as `ps` shows it."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


def descendants(pid: int) -> list[psutil.Process]:
    """Return all descendants of a process."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
