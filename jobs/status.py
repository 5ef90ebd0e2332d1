#!/usr/bin/env python3
"""How far an output is: done, pending and failed samples by shard, the last runs, the commonest errors."""

import json
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._arguments import place

EXAMPLES = """
examples:
  # after a night: is all done, how fast was it, what failed?
  python jobs/status.py --output s3://bucket/depth

  # and are there files that no run has seen yet?
  python jobs/status.py --output s3://bucket/depth --input 's3://bucket/shards/*.tar'

  # for a program: shards that are not finished
  python jobs/status.py --output depth/ --json | jq '.shards[] | select(.pending > 0) | .uri'

It lists the marks of finished chunks, reads the records of the last runs and the reasons in errors/ (of at most 1,000
chunks, those with the most failures first), and may be asked at any time, while a run works too. Planned is what the
last run over the whole input planned, and later runs with --since; those with --limit do not count, unless there was
never another. A run that was killed is shown as never ended.

exit codes:
  0 everything planned is done   1 something is pending, waits for a server, or is new or changed in the input
  2 a wrong setting, no run yet
  3 all is done, with more failures than --max-error-rate of the last run, or nothing but failures
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.STORES)
    parser.add_argument("--output", type=place, required=True, metavar="URI", help="output of a job")
    parser.add_argument(
        "--input",
        type=place,
        nargs="+",
        default=[],
        metavar="URI",
        help="what the job reads, as its command names it: tells what is new, changed or gone since the last plan",
    )
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    from pipelines.runs.status import as_json, read_status
    from pipelines.runs.status_text import status_text

    options = parse(arguments)
    status = read_status(options.output, options.input)
    print(json.dumps(as_json(status), indent=1) if options.json else status_text(status, datetime.now(UTC)))
    return status.exit_code


if __name__ == "__main__":
    _cli.finish(main)
