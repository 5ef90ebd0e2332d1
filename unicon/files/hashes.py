"""Hashes of files, cached by path, size and times, so that gigabytes are read once and not by every command."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

KEPT_FROM_BYTES = 1 << 20
"""Smaller files are not cached, since hashing them is faster than looking them up."""
SAMPLE_BYTES = 1 << 16
Files = Iterable[tuple[str, Path]]
"""Pairs (name, file)."""


def fingerprint(files: Files) -> str:
    """SHA-256 over names and contents of files, in hexadecimal."""
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name} {file_sha256(path)}\n".encode())
    return total.hexdigest()


def quick_fingerprint(files: Files) -> str:
    """SHA-256 over names, sizes, and the first, middle and last 64 KiB, to tell weights apart in milliseconds."""
    total = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            total.update(f"{name} {size}\n".encode())
            for start in (0, max(0, size // 2), max(0, size - SAMPLE_BYTES)):
                file.seek(start)
                total.update(file.read(SAMPLE_BYTES))
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Taken from the user's cache where the file has not changed."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        kept = _kept(path, before) if before.st_size >= KEPT_FROM_BYTES else None
        if kept is not None:
            try:
                text = kept.read_text()
            except OSError:
                text = ""
            if re.fullmatch(r"[0-9a-f]{64}", text):
                return text
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if kept is not None and _is_settled(before, os.fstat(file.fileno())):
            _keep(kept, digest)
    return digest


def cache_folder() -> Path:
    """The folder where this project keeps what it can compute again."""
    place = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = place if os.path.isabs(place) else tempfile.gettempdir()  # a container's user may have no home
    return Path(home, "unicon-data")


def _kept(path: Path, stat: os.stat_result) -> Path:
    """The cache entry for this state of a file. A change of its content changes its last time."""
    state = f"{path.resolve()}\0{_state(stat)}"
    return cache_folder() / "hashes" / hashlib.sha256(state.encode()).hexdigest()


def _state(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _is_settled(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a later change would show in the times of the file, whose granularity is a second on some disks."""
    if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    ):
        return False
    changed_ns = max(after.st_mtime_ns, after.st_ctime_ns)
    return time.time_ns() - changed_ns > (2_000_000_000 if changed_ns % 1_000_000_000 == 0 else 50_000_000)


def _keep(kept: Path, digest: str) -> None:
    """Write the entry atomically. Where the cache cannot be written, hashes are computed again."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=kept.parent)
        with os.fdopen(descriptor, "w") as file:
            file.write(digest)
        os.replace(temporary, kept)
    except OSError:
        return
