#!/usr/bin/env python3
"""Measure the accuracy of estimated depth, edges or poses on rendered scenes, or the correlation of two map sets."""

import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._arguments import integer, location, number
from pipelines import storage
from pipelines.dataset.ownership import check_replaceable, is_our_png, marked_png
from pipelines.errors import SettingError, clipped, say

CONDITIONS = ("depth", "edge", "pose")
ACCURACY, CORRELATION = "accuracy", "correlation"

EXAMPLES = """
examples:
  # render scenes that the model has not seen, estimate their depth, measure the accuracy
  python jobs/render_scenes.py --output out/test --count 500 --seed 101
  python jobs/estimate_depth.py --input out/test --output out/test-depth
  python jobs/evaluate.py --condition depth --predictions out/test-depth --truth out/test --picture out/test.png

  # what does a shortcut cost? the same scenes with another preset, and the two tables side by side
  python jobs/estimate_depth.py --input out/test --output out/test-fast --preset fast
  python jobs/evaluate.py --condition depth --predictions out/test-fast --truth out/test

  # does the estimated depth of generated images agree with the depth that they were generated from?
  python jobs/evaluate.py --condition depth --measure correlation --predictions out/depth-again --truth out/asked

--measure accuracy (--truth: tars of render_scenes.py):
  depth   AbsRel      mean of |estimate - truth| / truth after the inverse depth of each image is aligned to the truth
                      by scale and shift (arXiv 1907.01341); mean over images; 0 is perfect
          RMSE m      root mean squared error in meters
          delta1-3    share of pixels whose error is below a factor of 1.25, 1.25^2, 1.25^3; 1 is perfect
  edge    precision   share of estimated edge pixels that have a true edge pixel in their 3 x 3 neighborhood
          recall      share of true edge pixels that have an estimated one in theirs; F1: harmonic mean of both
          threshold   the value from 0.01 to 0.99 with the best F1 on the whole set, chosen separately for each row
  pose    PCK         share of visible true joints that are read back from the drawing within a tenth of the longer
                      side of the box around the person's visible joints; a missing joint counts as wrong
          invented    share of the joints not visible in the scene that were drawn anyway
  rows    UniCon                    the estimates
          mean of training scenes   baseline: mean inverse depth, edges or skeleton of training scenes, for all images
          vertical ramp             baseline for depth: far at the top, near at the bottom
          gradient of the picture   baseline for edges: the Sobel filter, which also responds to textures and shadows
  Estimates should be clearly better than the baselines. If the predictions have a column `confidence`, a second table
  shows the mean error by quartile of confidence; it should fall from the lowest to the highest quartile.

--measure correlation (--truth: Parquet files with `key` and the condition's column, or tars of render_scenes.py):
  matched     mean Pearson correlation of the maps with the same key
  shuffled    the same with the map of the next key, as a baseline: what the maps of any two samples have in common
  Pairs whose truth is constant (such as a pose map without people) are left out. A truth of another size is resized.
"""
SEEDS = """
seeds: evaluate on scenes the model has not seen. `mini` was trained and validated on scenes with seeds below 20, so
  choose a higher seed. The published numbers are for seed 101.

exit codes:
  0 complete   2 wrong setting, or no common keys
"""

MAX_DEPTH_M, BASELINE_SCENES, BASELINE_SEED = 12.0, 300, 1
OF_ACCURACY = ("max_depth_m", "baseline_scenes", "baseline_seed")
"""Options that have no meaning for correlation."""


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + SEEDS)
    parser.add_argument(
        "--condition", required=True, choices=CONDITIONS, help="condition to evaluate, and name of its column"
    )
    parser.add_argument(
        "--measure",
        choices=(ACCURACY, CORRELATION),
        default=ACCURACY,
        help="accuracy on rendered scenes, or correlation of any two sets of maps (default: %(default)s)",
    )
    add_options(parser)
    return parser.parse_args(arguments)


def add_options(parser: _cli.Parser) -> None:
    """Add the options that all conditions share."""
    parser.add_argument(
        "--predictions", type=location, required=True, metavar="URI", help="output of an estimation job"
    )
    parser.add_argument(
        "--truth",
        type=location,
        required=True,
        metavar="URI",
        help="output of render_scenes.py, or maps to compare with",
    )
    parser.add_argument(
        "--max-depth-m",
        type=number(0.1, 1000),
        metavar="X",
        help=f"depth only: ignore pixels whose true depth is greater, and clip estimates (default: {MAX_DEPTH_M:g}, "
        "which is beyond every wall)",
    )
    parser.add_argument(
        "--baseline-scenes",
        type=integer(1),
        metavar="N",
        help=f"number of training scenes in the mean baseline (default: {BASELINE_SCENES})",
    )
    parser.add_argument(
        "--baseline-seed",
        type=integer(0),
        metavar="N",
        help=f"seed of these training scenes (default: {BASELINE_SEED})",
    )
    parser.add_argument("--json", type=location, metavar="URI", help="JSON file to write the numbers and settings to")
    parser.add_argument(
        "--picture",
        type=location,
        metavar="URI.png",
        help="PNG file to draw image, truth and estimate of eight scenes to",
    )


def run(options: Namespace) -> int:
    """Measure, print and write the results, and return the exit code.

    Raises:
        SettingError: The two datasets cannot be compared, or an output cannot be written.
    """
    report_unused_options(options)
    from pipelines import evaluation  # imports torch, which would slow down --help

    if options.json:
        check_replaceable("--json", options.json, _is_our_json)
    if options.picture:
        if not options.picture.lower().endswith(".png"):
            raise SettingError(f"--picture {options.picture!r}: the file is a PNG. Choose a name that ends in .png.")
        check_replaceable("--picture", options.picture, is_our_png)
    if options.measure == CORRELATION:
        found = evaluation.compare_maps(options.predictions, options.truth, options.condition)
        text = evaluation.likeness_table(found)
        if found.left_out:
            say(f"{found.left_out} pairs are left out because their truth is constant")
    else:
        seed = BASELINE_SEED if options.baseline_seed is None else options.baseline_seed
        training = evaluation.TrainingScenes(seed, options.baseline_scenes or BASELINE_SCENES)
        measure = evaluation.measure_of(options.condition, training, options.max_depth_m or MAX_DEPTH_M)
        found = evaluation.evaluate(options.predictions, options.truth, measure)
        text = evaluation.accuracy_table(found)
    _report_unmatched(found.join.without_estimate, "scenes have no estimate")
    _report_unmatched(found.join.without_truth, "estimates have no scene")
    print(text)
    if options.json:
        _publish("--json", options.json, json.dumps(evaluation.summary(found), indent=2).encode() + b"\n")
    if options.picture and isinstance(found, evaluation.Evaluation):
        sheet = evaluation.comparison_image(found.shown, options.condition)
        _publish("--picture", options.picture, marked_png(sheet))
    return 0


def report_unused_options(options: Namespace) -> None:
    """Report options that have no effect.

    Raises:
        SettingError: `--picture` is given for a measure that draws nothing.
    """
    if options.measure == CORRELATION and options.picture:
        raise SettingError("--picture needs the images of rendered scenes. Remove it, or use --measure accuracy.")
    for name in OF_ACCURACY:
        if options.measure == CORRELATION and getattr(options, name) is not None:
            say(f"--{name.replace('_', '-')} has no effect: it applies to --measure accuracy only")
    if options.measure == ACCURACY and options.max_depth_m is not None and options.condition != "depth":
        say(f"--max-depth-m has no effect: it applies to depth only, and --condition is {options.condition}")


def _report_unmatched(keys: list[str], words: str) -> None:
    if keys:
        say(f"{len(keys)} {words} and are left out: {clipped(', '.join(keys[:5]))}{', ...' if len(keys) > 5 else ''}")


def _is_our_json(content: bytes) -> bool:
    """Return whether a file holds results of this command, in this or an earlier version."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "protocol" in found and bool({"metrics", "correlation"} & found.keys())


def _publish(option: str, uri: str, content: bytes) -> None:
    try:
        storage.publish(storage.normalize(uri), content)
    except Exception as error:  # every storage driver has its own exceptions for denied access
        raise SettingError(f"{option} {uri!r} cannot be written: {type(error).__name__}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(parse(arguments))


if __name__ == "__main__":
    _cli.finish(main)
