#!/usr/bin/env python3
"""Measure the accuracy of estimated depth on rendered scenes, next to two trivial baselines."""

import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli, evaluate

EXAMPLES = """
examples:
  # render scenes that the model has not seen, estimate their depth, measure the accuracy
  python jobs/render_scenes.py --output out/test --count 500 --seed 101
  python jobs/estimate_depth.py --input out/test --output out/test-depth
  python jobs/evaluate_depth.py --predictions out/test-depth --truth out/test --picture out/test.png

metrics (means over images; the inverse depth of each estimate is first aligned to the truth by scale and shift, as for
MiDaS, arXiv 1907.01341):
  AbsRel             |estimate - truth| / truth; 0 is perfect
  RMSE m             root mean squared error in meters
  delta1, 2, 3       share of pixels whose error is below a factor of 1.25, 1.25^2, 1.25^3; 1 is perfect

rows:
  UniCon                     the estimates
  mean of training scenes    baseline: one map for all images, the mean inverse depth of training scenes
  vertical ramp              baseline: one map for all images, far at the top and near at the bottom
Estimates should be clearly better than the baselines.

evaluate.py evaluates edges and poses, too, and compares two sets of maps.
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + evaluate.SEEDS)
    evaluate.add_options(parser)
    fixed = Namespace(condition="depth", kind=None, measure=evaluate.ACCURACY, only_scenes=True)
    return parser.parse_args(arguments, fixed)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return evaluate.run(parse(arguments))


if __name__ == "__main__":
    _cli.finish(main)
