"""Faults in which the disk of the output fills up during a run and is freed later."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.faults.tally import error_rows
from tests.faults.work import (
    Outcome,
    exit_code,
    finish,
    local_work,
    running,
    until_done,
    wait_for_marks,
    wait_for_moment,
    with_options,
)

DISK_BYTES = 64 << 20
NAMESPACES = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
"""Commands for a private mount that ends with its process: as root, and as any user if the kernel allows it."""


class NoSmallDiskError(Exception):
    """Raised if this machine does not allow mounts."""


def disk_full(folder: Path, random: Random) -> Outcome:
    """Fill the file system of the output to the last byte, and free it when the command has given up."""
    with small_disk(folder / "disk") as disk:
        work = replace(local_work(folder), output=str(disk / "out"))
        with running(work) as process:
            wait_for_moment(random, work, process)
            fill(disk)
            exit_code(process)
            (disk / "ballast").unlink()
            return finish(work, process)


def retry_disk_full(folder: Path, random: Random) -> Outcome:
    """Run with failed samples, then fill the disk during a run with --retry-errors, and free it afterwards."""
    switch = folder / "model-fails"
    switch.touch()
    with small_disk(folder / "disk") as disk:
        work = replace(local_work(folder), output=str(disk / "out"), fails_while=str(switch))
        until_done(replace(work, delay_s=0))
        failed = len(error_rows(work.output))
        switch.unlink()
        retry = with_options(work, "--retry-errors")
        with running(retry) as process:
            marks = work.marks() + random.randrange(work.chunks // 2)
            wait_for_marks(work, process, marks, random.uniform(0, work.chunk_size * work.delay_s))
            fill(disk)
            exit_code(process)
            (disk / "ballast").unlink()
            outcome = finish(retry, process, {"failed": failed})
        assert len(error_rows(work.output)) == 1, "in the end only the broken image fails"
        return outcome


def fill(disk: Path) -> None:
    """Write until the disk is full."""
    size_bytes = 1 << 20
    with (disk / "ballast").open("wb", buffering=0) as file:
        while size_bytes:
            try:
                file.write(bytes(size_bytes))
            except OSError:
                size_bytes //= 2


@contextmanager
def small_disk(mount_point: Path) -> Iterator[Path]:
    """Mount an in-memory file system of DISK_BYTES in its own namespace, and yield its path from outside.

    Raises:
        NoSmallDiskError: Neither root nor user namespaces are available.
    """
    mount_point.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$0" && echo mounted && exec sleep infinity'
    for namespace in NAMESPACES:
        if shutil.which(namespace[0]) is None:
            break
        holder = subprocess.Popen(
            [*namespace, "sh", "-c", mount, str(mount_point)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert holder.stdout is not None
            if holder.stdout.readline() == b"mounted\n":
                yield Path(f"/proc/{holder.pid}/root") / mount_point.relative_to("/")
                return
        finally:
            holder.kill()
            holder.wait()
    raise NoSmallDiskError(
        "a small disk needs root or user namespaces (unshare --user --mount); this machine has neither"
    )
