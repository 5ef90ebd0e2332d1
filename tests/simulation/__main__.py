"""Simulate many schedules and print which invariants were broken, and how.

python -m tests.simulation --minutes 60
python -m tests.simulation --minutes 30 --campaign campaign.json        adds to the campaign so far
python -m tests.simulation --seeds 500 --features kill+limit,retry --form tar
python -m tests.simulation --seeds 1 --first 29 --features limit --form tar        replay one schedule, shrunk
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.campaign import HEADING, Kind, play_seed, run
from tests.simulation.contents import FORMS
from tests.simulation.features import COMBINATIONS, FEATURES, make_scenario, parse
from tests.simulation.record import Record
from tests.simulation.shrink import Shrinker
from tests.simulation.trace import story

STORIES = 3
"""Number of broken schedules that are printed in full."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns exit code 1 if anything was broken."""
    options = _parser().parse_args(words)
    names = options.features.split(",") if options.features else [*FEATURES, *COMBINATIONS]
    forms = options.form.split(",") if options.form else list(FORMS)
    for name in names:
        parse(name)
    kinds = [Kind(features=name, form=form) for name in names for form in forms]
    started = time.monotonic()
    record = Record.read(options.campaign) if options.campaign else None
    first = options.first if record is None or record.first is None else record.first
    add = (lambda batch: None) if record is None else record.add
    tallies = run(kinds, first, options.seeds, options.minutes, options.processes, add)
    elapsed_s = time.monotonic() - started
    schedules = sum(tally.schedules for tally in tallies)
    print("\n".join((HEADING, *(tally.line for tally in tallies))))
    print(f"{schedules} schedules in {elapsed_s:.0f} s: {60 * schedules / elapsed_s:.0f} a minute")
    if record is not None:
        record.write()
        print(f"{options.campaign}: {sum(each.schedules for each in record.tallies.values())} schedules of this code")
    if options.json:
        Path(options.json).write_text(json.dumps([tally.as_json() for tally in tallies], indent=1))
    broken = [tally for tally in tallies if tally.broken]
    for tally in broken[:STORIES]:
        tell(tally.kind, min(tally.broken))
    return 1 if broken else 0


def tell(kind: Kind, number: int) -> None:
    """Shrink a broken schedule and print it."""
    played = play_seed(kind, number)
    scenario = make_scenario(kind.seed(number), parse(kind.features), kind.form)
    case = Shrinker(scenario, played).shrink()
    command = f"--seeds 1 --first {number} --features {kind.features} --form {kind.form}"
    print(f"\n{kind.features}, {kind.form}, seed {number}: {', '.join(played.broken)}; shrunk:\n")
    print("\n".join(story(case.scenario, case.played)))
    print(f"\nagain:  python -m tests.simulation {command}")


def _parser() -> argparse.ArgumentParser:
    features = "\n".join(f"  {name:24} {what}" for name, what in FEATURES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        epilog=f"features, alone or combined with +:\n{features}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seeds", type=int, metavar="N", help="schedules for each combination of feature and form")
    length.add_argument("--minutes", type=float, metavar="M", help="simulate as many schedules as fit into this time")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="first seed (default 0)")
    parser.add_argument("--features", metavar="A,B+C", help="features (default: all, and the usual combinations)")
    parser.add_argument("--form", metavar="FORM", help=f"form of the input: {', '.join(FORMS)} (default: all)")
    parser.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        metavar="P",
        help="default: one per core",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the table to this file")
    parser.add_argument(
        "--campaign",
        type=Path,
        metavar="FILE",
        help="add to the schedules in this file, with new seeds; it is written as the simulation proceeds, and starts "
        "from nothing when the code has changed",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
