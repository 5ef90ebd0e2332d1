"""A fault in which two commands write to one output at the same time."""

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.faults.work import (
    Outcome,
    Work,
    exit_code,
    local_work,
    running,
    until_done,
    wait,
    wait_for_marks,
    with_options,
)
from tests.support.ray_clusters import cluster

DELAY_S = 0.2
"""Delay of the model, so long that the first command still runs when the second has started."""
JOINING_S = 8.0
"""Approximate time from the start of a command to its first chunk on a running cluster."""
SAME, LIMIT, RETRY = "same", "limit", "retry-errors"


def overlap(folder: Path, random: Random) -> Outcome:
    """Start a second command with the same settings on the same cluster while the first one starts or works.

    In half of the rounds the first command is killed some time later. In some rounds the second has a --limit. In some
    it has --retry-errors, and the model fails on a third of the samples until some chunks are finished. Each command is
    run again until it is done.
    """
    with cluster(folder, [("--num-cpus=4",)]) as there:
        return _overlap(folder, random, there.environment)


def _overlap(folder: Path, random: Random, environment: Mapping[str, str]) -> Outcome:
    kind = random.choice((SAME, LIMIT, RETRY))
    first = replace(local_work(folder), environment=environment, delay_s=DELAY_S)
    first = replace(first, fails_while=str(folder / "model-fails"))
    if kind == RETRY:
        Path(first.fails_while).touch()
    limit = str(random.randrange(1, len(first.images)))
    second = with_options(first, *{SAME: (), LIMIT: ("--limit", limit), RETRY: ("--retry-errors",)}[kind])
    kill_after_s = random.uniform(0, 2 * JOINING_S) if random.random() < 0.5 else None
    with running(first) as one:
        if random.random() < 1 / 3:
            wait_for_marks(first, one, random.randrange(1, 4), random.uniform(0, first.chunk_size * DELAY_S))
        else:
            wait(one, random.uniform(0, JOINING_S))
        with running(second) as two:
            if kind == RETRY:
                wait_for_marks(first, one, random.randrange(1, first.chunks // 2), 0)
                Path(first.fails_while).unlink()
            if kill_after_s is not None:
                wait(one, kill_after_s)
                one.kill()
            return _finish((first, one), (second, two), {kind: 1})


def _finish(
    first: tuple[Work, "subprocess.Popen[bytes]"],
    second: tuple[Work, "subprocess.Popen[bytes]"],
    notes: dict[str, float],
) -> Outcome:
    """Wait for both commands and run each until it is done; a final exit code other than 0 is placed last."""
    ended = [(work, exit_code(process)) for work, process in (first, second)]
    notes |= {"killed": float(ended[0][1] == -signal.SIGKILL)}
    runs = sorted((until_done(work, [code]) for work, code in ended), key=lambda codes: codes[-1] != 0)
    return Outcome(tally=first[0].tally(), exit_codes=tuple(code for codes in runs for code in codes), notes=notes)
