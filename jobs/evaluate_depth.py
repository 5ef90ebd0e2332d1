#!/usr/bin/env python3
"""Measure estimated depth against the exact depth of rendered scenes, beside two guesses that see nothing."""

import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from pipelines import pictures, storage
from pipelines.errors import SettingError
from pipelines.runner import say

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

exit codes:
  0 done   2 a wrong setting, or no key in common
"""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES)
    parser.add_argument("--predictions", required=True, metavar="URI", help="output of estimate_depth.py")
    parser.add_argument("--truth", required=True, metavar="URI", help="output of render_scenes.py")
    parser.add_argument(
        "--max-depth-m",
        type=_cli.number(0.1, 1000),
        default=12.0,
        metavar="X",
        help="farther truth is not counted, and no estimate is farther (default: %(default)g, beyond every wall)",
    )
    parser.add_argument(
        "--baseline-scenes",
        type=_cli.whole(1),
        default=300,
        metavar="N",
        help="training scenes in the mean map (default: %(default)s)",
    )
    parser.add_argument(
        "--baseline-seed",
        type=_cli.whole(0),
        default=1,
        metavar="N",
        help="seed of the training scenes (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="URI", help="write the numbers and what made them here")
    parser.add_argument("--picture", metavar="URI.png", help="draw image, truth and estimate of eight scenes here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = parse(arguments)
    from pipelines.evaluation import MeanMap, evaluate, picture, summary, table  # imports torch: --help needs not wait

    mean_map = MeanMap(options.baseline_seed, options.baseline_scenes)
    evaluation, estimates = evaluate(options.predictions, options.truth, mean_map, options.max_depth_m)
    for keys, words in (
        (evaluation.without_estimate, "scenes have no estimate"),
        (evaluation.without_truth, "estimates have no scene"),
    ):
        if keys:
            say(f"{len(keys)} {words} and are left out: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}")
    print(table(evaluation))
    if options.json:
        numbers = summary(evaluation, estimates, mean_map, options.max_depth_m)
        _publish("--json", options.json, json.dumps(numbers, indent=2).encode() + b"\n")
    if options.picture:
        _publish("--picture", options.picture, pictures.png_bytes(picture(evaluation.pictured)))
    return 0


def _publish(option: str, uri: str, content: bytes) -> None:
    try:
        storage.publish(storage.normalise(uri), content)
    except Exception as error:  # every storage driver has its own exceptions for "you may not"
        raise SettingError(f"{option} {uri!r} cannot be written: {type(error).__name__}: {error}") from error


if __name__ == "__main__":
    _cli.finish(main)
