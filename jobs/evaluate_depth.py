#!/usr/bin/env python3
"""Measure estimated depth against the exact depth of rendered scenes, beside two guesses that see nothing."""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, evaluate

EXAMPLES = """
examples:
  # scenes that the model has not seen, their depth, the verdict
  python jobs/render_scenes.py --output out/test --count 500 --seed 101
  python jobs/estimate_depth.py --input out/test --output out/test-depth
  python jobs/evaluate_depth.py --predictions out/test-depth --truth out/test --picture out/test.png

metrics (means over images; each estimate first gets the scale and shift that fit the true inverse depth best, as for
MiDaS, arXiv 1907.01341):
  AbsRel             |estimate - truth| / truth, 0 is perfect
  RMSE m             root of the mean squared error, in metres
  delta1, 2, 3       share of pixels off by a factor below 1.25, 1.25^2, 1.25^3; 1 is perfect

rows:
  UniCon                     the estimates
  mean of training scenes    one map for all: the mean inverse depth of scenes of the training seed
  vertical ramp              one map for all: far at the top, near at the bottom
An estimate that is no better than these has seen nothing.

evaluate.py does the same for edges and poses, and compares two sets of maps.
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + evaluate.SEEDS)
    evaluate.add_options(parser)
    return parser.parse_args(arguments, Namespace(condition="depth", measure=evaluate.ACCURACY))


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return evaluate.run(parse(arguments))


if __name__ == "__main__":
    _cli.finish(main)
