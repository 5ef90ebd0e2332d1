#!/usr/bin/env python3
"""Break real runs at random moments, run them again until they are done, and count lost and duplicated rows.

    python -m tests.faults.rounds --fault driver-kill --rounds 20 --seed 1
    python -m tests.faults.rounds --rounds 20 --seed 1 --record     # every fault, into docs/reliability.md

With --record, rounds of this seed that are already recorded are not repeated.

A round whose job ended before the fault is drawn again. The exit code is 1 if a row was lost or duplicated, a file was
torn, or a job did not end.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from tests.faults import report
from tests.faults.disk import disk_full, retry_disk_full
from tests.faults.kills import actor_hang, actor_kill, corpus_actor_kill, cpu_worker_kill, driver_kill, driver_term
from tests.faults.nodes import raylet_kill, small_object_store
from tests.faults.outage import s3_outage
from tests.faults.overlap import overlap
from tests.faults.shards import shard_change
from tests.faults.work import Outcome, TooLateError

Fault = Callable[[Path, Random], Outcome]
FAULTS: Mapping[str, Fault] = {
    "driver-kill": driver_kill,
    "driver-term": driver_term,
    "actor-kill": actor_kill,
    "corpus-actor-kill": corpus_actor_kill,
    "actor-hang": actor_hang,
    "cpu-worker-kill": cpu_worker_kill,
    "raylet-kill": raylet_kill,
    "small-object-store": small_object_store,
    "s3-outage": s3_outage,
    "disk-full": disk_full,
    "retry-disk-full": retry_disk_full,
    "overlap": overlap,
    "shard-change": shard_change,
}
DRAWS = 5


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.rounds", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fault", action="append", choices=FAULTS, help="repeatable (default: all)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each fault (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and targets (default: %(default)s)")
    parser.add_argument(
        "--record", action="store_true", help="store the results after every round and update docs/reliability.md"
    )
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every round starts dozens of processes, which share the bytecode
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # also ends clusters and servers
    start = report.begun if options.record else lambda name, seed: report.Result(fault=name, seed=seed)
    results = {name: start(name, options.seed) for name in options.fault or FAULTS}
    for number in range(options.rounds):
        for name, result in results.items():
            if result.rounds > number:
                continue
            results[name] = one_more(result)
            if options.record:
                report.record(results[name])
    print(report.table(list(results.values())))
    return 0 if all(result.is_clean for result in results.values()) else 1


def one_more(result: report.Result) -> report.Result:
    """Return the result with its next round; the folder of a failed round is kept and printed."""
    name, number = result.fault, result.rounds
    folder = Path(tempfile.mkdtemp(prefix=f"fault-{name}-{number}-"))
    began_s = time.monotonic()
    try:
        outcome = one_round(name, folder, result.seed, number)
    except Exception:
        traceback.print_exc()
        print(f"{name}, round {number}: did not end; see {folder}", file=sys.stderr)
        return result.with_failure()
    seconds = time.monotonic() - began_s
    print(f"{name}, round {number}, {seconds:.0f} s: {outcome}", file=sys.stderr, flush=True)
    if outcome.is_clean:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"{name}, round {number}: see {folder}", file=sys.stderr)
    return result.with_outcome(outcome)


def one_round(name: str, folder: Path, seed: int, number: int) -> Outcome:
    """Run one round, which is drawn again if the fault came too late.

    Raises:
        TooLateError: The fault came too late in all DRAWS draws.
    """
    for draw in range(DRAWS):
        place = folder / f"draw-{draw}"
        place.mkdir()
        try:
            return FAULTS[name](place, Random(f"{name} {seed} {number} {draw}"))
        except TooLateError:
            continue
    raise TooLateError(f"{name} came too late {DRAWS} times")


if __name__ == "__main__":
    raise SystemExit(main())
