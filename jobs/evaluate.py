#!/usr/bin/env python3
"""Measure estimated depth, edges or poses against rendered truth, or how alike two sets of maps are."""

import json
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs._arguments import number, place, whole
from pipelines import storage
from pipelines.dataset.ownership import check_replaceable, is_our_png, marked_png
from pipelines.errors import SettingError
from pipelines.texts import clipped, say

CONDITIONS = ("depth", "edge", "pose")
ACCURACY, CORRELATION = "accuracy", "correlation"

EXAMPLES = """
examples:
  # scenes that the model has not seen, estimates of them, the verdict
  python jobs/render_scenes.py --output out/test --count 500 --seed 101
  python jobs/estimate_depth.py --input out/test --output out/test-depth
  python jobs/evaluate.py --condition depth --predictions out/test-depth --truth out/test --picture out/test.png

  # pictures made to a depth map: does their depth, estimated, agree with the depth asked for?
  python jobs/evaluate.py --condition depth --measure correlation --predictions out/depth-again --truth out/asked

--measure accuracy (the truth: tars of render_scenes.py):
  depth   AbsRel      mean of |estimate - truth| / truth after the best scale and shift of each image's inverse depth
                      (arXiv 1907.01341), mean over images; 0 is perfect
          RMSE m      root of the mean squared error, in metres
          delta1-3    share of pixels off by a factor below 1.25, 1.25^2, 1.25^3; 1 is perfect
  edge    precision   share of the estimated edge pixels with a true one among their 3 x 3 neighbours
          recall      share of the true edge pixels with an estimated one among theirs; F1: harmonic mean
          threshold   the one of 0.01 to 0.99 with the best F1 on the whole set, for each row its own
  pose    PCK         share of the visible true joints with the joint read back from the drawing within a tenth of the
                      longer side of the box around the person's visible joints; a missing joint is wrong
          invented    share of the joints that nobody has in view and that were drawn all the same
  rows    UniCon                    the estimates
          mean of training scenes   the same for all: mean inverse depth, mean edges, mean skeleton of training scenes
          vertical ramp             depth: far at the top, near at the bottom
          gradient of the picture   edge: the Sobel filter, which sees textures and shadows as edges
  An estimate that is no better than these has seen nothing. Where the predictions have a column `confidence`, a second
  table gives the mean error of each quarter of the images by confidence: it should fall from the lowest to the highest.

--measure correlation (the truth: Parquet files with `key` and the condition's column, or tars of render_scenes.py):
  matched     mean Pearson correlation of each map with the one of the same key
  shuffled    the same with the map of the next key: what maps of any two samples share
  Pairs whose truth is the same everywhere (the pose of nobody) are left out; a truth of another size is scaled.
"""
SEEDS = """
seeds: a model is measured on scenes it has not seen. `mini` was made with seeds below 20 (trained on some, compared on
  others): take none of these. The published numbers are of seed 101.

exit codes:
  0 done   2 a wrong setting, or no key in common
"""

MAX_DEPTH_M, BASELINE_SCENES, BASELINE_SEED = 12.0, 300, 1
OF_ACCURACY = ("max_depth_m", "baseline_scenes", "baseline_seed")
"""Options without a meaning for correlation."""


def parse(arguments: list[str] | None = None) -> Namespace:
    """The command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + SEEDS)
    parser.add_argument("--condition", required=True, choices=CONDITIONS, help="whose maps; names their column too")
    parser.add_argument(
        "--measure",
        choices=(ACCURACY, CORRELATION),
        default=ACCURACY,
        help="against the truth of rendered scenes, or how alike any two sets of maps are (default: %(default)s)",
    )
    add_options(parser)
    return parser.parse_args(arguments)


def add_options(parser: _cli.Parser) -> None:
    """The options that all conditions share."""
    parser.add_argument("--predictions", type=place, required=True, metavar="URI", help="output of an estimate job")
    parser.add_argument(
        "--truth", type=place, required=True, metavar="URI", help="output of render_scenes.py, or maps to compare with"
    )
    parser.add_argument(
        "--max-depth-m",
        type=number(0.1, 1000),
        metavar="X",
        help=f"of depth: farther truth is not counted, and no estimate is farther (default: {MAX_DEPTH_M:g}, beyond "
        "every wall)",
    )
    parser.add_argument(
        "--baseline-scenes",
        type=whole(1),
        metavar="N",
        help=f"training scenes in the mean map (default: {BASELINE_SCENES})",
    )
    parser.add_argument(
        "--baseline-seed",
        type=whole(0),
        metavar="N",
        help=f"seed of the training scenes (default: {BASELINE_SEED})",
    )
    parser.add_argument("--json", type=place, metavar="URI", help="write the numbers and what made them here")
    parser.add_argument(
        "--picture", type=place, metavar="URI.png", help="draw image, truth and estimate of eight scenes here"
    )


def run(options: Namespace) -> int:
    """Measure, print, write; returns the exit code.

    Raises:
        SettingError: the two data sets cannot be compared, or an output cannot be written.
    """
    tell_without_effect(options)
    from pipelines import evaluation  # imports torch: --help needs not wait

    if options.json:
        check_replaceable("--json", options.json, _is_our_json)
    if options.picture:
        if not options.picture.lower().endswith(".png"):
            raise SettingError(f"--picture {options.picture!r}: it is a PNG. Name it NAME.png.")
        check_replaceable("--picture", options.picture, is_our_png)
    if options.measure == CORRELATION:
        found = evaluation.compare_maps(options.predictions, options.truth, options.condition)
        text = evaluation.alike_table(found)
        if found.left_out:
            say(f"{found.left_out} pairs are left out: their truth is the same everywhere")
    else:
        seed = BASELINE_SEED if options.baseline_seed is None else options.baseline_seed
        training = evaluation.TrainingScenes(seed, options.baseline_scenes or BASELINE_SCENES)
        measure = evaluation.measure_of(options.condition, training, options.max_depth_m or MAX_DEPTH_M)
        found = evaluation.evaluate(options.predictions, options.truth, measure)
        text = evaluation.accuracy_table(found)
    _tell_unmatched(found.join.without_estimate, "scenes have no estimate")
    _tell_unmatched(found.join.without_truth, "estimates have no scene")
    print(text)
    if options.json:
        _publish("--json", options.json, json.dumps(evaluation.summary(found), indent=2).encode() + b"\n")
    if options.picture and isinstance(found, evaluation.Evaluation):
        sheet = evaluation.picture(found.pictured, options.condition)
        _publish("--picture", options.picture, marked_png(sheet))
    return 0


def tell_without_effect(options: Namespace) -> None:
    """Say which options change nothing. Raises SettingError for a picture that cannot be drawn."""
    if options.measure == CORRELATION and options.picture:
        raise SettingError("--picture needs the pictures of rendered scenes: it goes with --measure accuracy.")
    for name in OF_ACCURACY:
        if options.measure == CORRELATION and getattr(options, name) is not None:
            say(f"--{name.replace('_', '-')} has no effect: it is of --measure accuracy")
    if options.measure == ACCURACY and options.max_depth_m is not None and options.condition != "depth":
        say(f"--max-depth-m has no effect: it is of depth, and --condition is {options.condition}")


def _tell_unmatched(keys: list[str], words: str) -> None:
    if keys:
        say(f"{len(keys)} {words} and are left out: {clipped(', '.join(keys[:5]))}{', ...' if len(keys) > 5 else ''}")


def _is_our_json(content: bytes) -> bool:
    """Whether a file holds numbers of this command, of this version or an earlier one."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "protocol" in found and bool({"metrics", "correlation"} & found.keys())


def _publish(option: str, uri: str, content: bytes) -> None:
    try:
        storage.publish(storage.normalise(uri), content)
    except Exception as error:  # every storage driver has its own exceptions for "you may not"
        raise SettingError(f"{option} {uri!r} cannot be written: {type(error).__name__}: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(parse(arguments))


if __name__ == "__main__":
    _cli.finish(main)
