"""Two commands on one output at the same time."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.faults.work import (
    START_UP_S,
    Outcome,
    Work,
    exit_code,
    local_work,
    running,
    until_done,
    wait,
    wait_for_moment,
    with_options,
)

SAME, LIMIT, RETRY = "same", "limit", "retry-errors"


def overlap(folder: Path, random: Random) -> Outcome:
    """A second command of the same settings starts while the first works, which in half of the rounds is killed then.

    In some rounds the second has a --limit. In some it has --retry-errors, and the model fails on a third of the
    samples until the second command starts. Each command is run again until it is done.
    """
    kind = random.choice((SAME, LIMIT, RETRY))
    first = local_work(folder)
    if kind == RETRY:
        (folder / "model-fails").touch()
        first = replace(first, fails_while=str(folder / "model-fails"))
    limit = str(random.randrange(1, len(first.pictures)))
    second = with_options(first, *{SAME: (), LIMIT: ("--limit", limit), RETRY: ("--retry-errors",)}[kind])
    kill_after_s = random.uniform(0, 2 * START_UP_S) if random.random() < 0.5 else None
    with running(first) as one:
        wait_for_moment(random, first, one, start_up=True)
        with running(second) as two:
            (folder / "model-fails").unlink(missing_ok=True)
            if kill_after_s is not None:
                wait(one, kill_after_s)
                one.kill()
            return _finish((first, one), (second, two), {kind: 1})


def _finish(
    first: tuple[Work, "subprocess.Popen[bytes]"],
    second: tuple[Work, "subprocess.Popen[bytes]"],
    notes: dict[str, float],
) -> Outcome:
    """Wait for both, run each again until it is done; the exit codes end with one that is not 0, if there is one."""
    ended = [(work, exit_code(process)) for work, process in (first, second)]
    notes |= {"killed": float(ended[0][1] == -signal.SIGKILL)}
    runs = sorted((until_done(work, [code]) for work, code in ended), key=lambda codes: codes[-1] != 0)
    return Outcome(tally=first[0].tally(), exit_codes=tuple(code for codes in runs for code in codes), notes=notes)
