#!/usr/bin/env python3
"""Show the progress of an output: samples per shard, the latest runs and the most frequent errors."""

import json
import sys
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._arguments import location

EXAMPLES = """
examples:
  # after a nightly run: is everything done, how fast was it, what failed?
  python jobs/status.py --output s3://bucket/depth

  # also: are there files that no run has planned yet?
  python jobs/status.py --output s3://bucket/depth --input 's3://bucket/shards/*.tar'

  # for programs: shards that are not finished
  python jobs/status.py --output depth/ --json | jq '.shards[] | select(.pending > 0) | .uri'

The command lists the marks of finished chunks and reads the records of the latest runs and the reasons in errors/ (of
up to 1,000 chunks, those with the most failures first). It works at any time, also during a run. The plan is that of
the latest run over the whole input, plus those of later runs with --since; runs with --limit count only if there are no
others. A run that was killed is shown as never ended.

exit codes:
  0 complete   1 samples are pending, wait for a server, or are new or changed in the input
  2 wrong setting, or no run yet
  3 complete, but with more failures than --max-error-rate of the latest run, or nothing but failures
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + _cli.STORES)
    parser.add_argument("--output", type=location, required=True, metavar="URI", help="output of a job")
    parser.add_argument(
        "--input",
        type=location,
        nargs="+",
        default=[],
        metavar="URI",
        help="the --input of the job; reports what is new, changed or gone since the latest plan",
    )
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parse(arguments)
    from pipelines.runs.status import as_json, read_status
    from pipelines.runs.status_text import status_text

    status = read_status(options.output, options.input)
    print(json.dumps(as_json(status), indent=1) if options.json else status_text(status, datetime.now(UTC)))
    return status.exit_code


if __name__ == "__main__":
    _cli.finish(main)
