"""Looking at processes from outside."""

from contextlib import suppress

import psutil


def title(process: psutil.Process) -> str:
    """What `ps` shows."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below one."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
