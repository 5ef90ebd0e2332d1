#!/usr/bin/env python3
"""Measure the accuracy of maps against rendered scenes or any other truth, or the correlation of two sets of maps."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import _cli
from jobs import _evaluation_options as _options
from jobs._evaluation_options import ACCURACY, BASELINE_SCENES, BASELINE_SEED, CAPTION, CORRELATION, MAX_DEPTH_M
from pipelines import storage
from pipelines.dataset.ownership import check_replaceable, is_our_png, is_our_text, marked_png
from pipelines.errors import SettingError, clipped, say

if TYPE_CHECKING:
    from pipelines.evaluation import Comparison, Evaluation, Join, Measure, Slice

SAMPLES_ON_PAGE = 6
"""Worst samples on a page, and as many best ones."""

EXAMPLES = """
examples:
  # render scenes that the model has not seen, estimate their depth, measure the accuracy
  python jobs/render_scenes.py --output out/test --count 500 --seed 101
  python jobs/estimate_depth.py --input out/test --output out/test-depth
  python jobs/evaluate.py --condition depth --predictions out/test-depth --truth out/test --picture out/test.png

  # what does a shortcut cost? the same scenes with another preset, and the differences with their intervals
  python jobs/estimate_depth.py --input out/test --output out/test-fast --preset fast
  python jobs/evaluate.py --condition depth --predictions out/test-fast --truth out/test --intervals \\
      --compare-with out/test-depth

  # any maps against any others, by the values of a column and by the words of the captions, as a page with pictures
  python jobs/evaluate.py --condition normal --predictions out/normals --truth scans/*.parquet --truth-column normals \\
      --slice-by source --slice-by-word --page out/normals.html

  # does the estimated depth of generated images agree with the depth that they were generated from?
  python jobs/evaluate.py --condition depth --measure correlation --predictions out/depth-again --truth out/asked

--measure accuracy, --truth: tars of render_scenes.py:
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
  rows    UniCon                    the predictions
          mean of training scenes   baseline: mean inverse depth, edges or skeleton of training scenes, for all images
          vertical ramp             baseline for depth: far at the top, near at the bottom
          gradient of the picture   baseline for edges: the Sobel filter, which also responds to textures and shadows
  Estimates should be clearly better than the baselines. If the predictions have a column `confidence`, a second table
  shows the mean error by quartile of confidence; it should fall from the lowest to the highest quartile.

--measure accuracy, any other truth (Parquet files or tars with maps under the same keys, or --truth-column):
  depth   AbsRel, RMSE and delta1 of relative inverse depth, aligned by scale and shift; there are no meters
  edge    as above; edges of the truth are pixels above half strength
  pose    as above; the truth is the one skeleton that is read from the drawing
  normal  mean and median angle in degrees; share of pixels below 11.25, 22.5 and 30 degrees
  others  colors      intersection of the color histograms (RGB images such as appearance and identity); 1 is equal
          corr., PSNR dB, MAE   Pearson correlation, peak signal-to-noise ratio and mean absolute error of the pixels
  Predictions of another size than their truth are scaled to it.

intervals: 95 % of 1000 sets drawn with replacement from the images (bootstrap) have a metric within the interval. The
  interval of a difference is that of two sets of predictions on the same images; without 0 it is significant.

--measure correlation (--truth: Parquet files with `key` and the condition's column, or tars):
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


def parse(arguments: list[str] | None = None) -> Namespace:
    """Parse the command line."""
    parser = _cli.Parser(__doc__ or "", EXAMPLES + SEEDS)
    _options.add_condition(parser)
    add_options(parser)
    return _options.checked(parser, parser.parse_args(arguments, Namespace(only_scenes=False)))


def add_options(parser: _cli.Parser) -> None:
    """Add the options that all conditions share."""
    _options.add_datasets(parser)
    _options.add_settings(parser)
    _options.add_reports(parser)


def run(options: Namespace) -> int:
    """Measure, print and write the results, and return the exit code.

    Raises:
        SettingError: The two datasets cannot be compared, or an output cannot be written.
    """
    from pipelines import evaluation  # imports torch, which would slow down --help

    _check_outputs(options)
    kind = options.kind or options.condition
    has_scenes = (
        options.measure == ACCURACY
        and kind in evaluation.MAP_MEMBERS
        and not options.truth_column
        and (options.only_scenes or evaluation.has_tars(options.truth))
    )
    _options.report_unused_options(options, has_scenes)
    return _correlate(options) if options.measure == CORRELATION else _measure(options, kind, has_scenes)


def _correlate(options: Namespace) -> int:
    from pipelines import evaluation

    found = evaluation.compare_maps(_join(options))
    if found.left_out:
        say(f"{found.left_out} pairs are left out because their truth is constant")
    _report_unmatched(found.join)
    print(evaluation.likeness_table(found))
    if options.json:
        _publish_json(options.json, evaluation.summary(found))
    return 0


def _measure(options: Namespace, kind: str, has_scenes: bool) -> int:
    from pipelines import evaluation

    measure = _scene_measure(options, kind) if has_scenes else evaluation.map_measure_of(kind)
    found = evaluation.evaluate(_join(options, measure), measure, SAMPLES_ON_PAGE if options.page else 0)
    _report_unmatched(found.join, "scene" if has_scenes else "truth")
    if found.scaled and not has_scenes:
        say(f"{found.scaled} predictions have another size than their truth and are scaled to it")
    comparison = None
    if options.compare_with:
        join = _join(options, measure, predictions=options.compare_with, option="--compare-with")
        comparison = evaluation.compare(found, evaluation.evaluate(join, measure))
    slices = _slices(options, found)
    print("\n\n".join(_texts(options, found, slices, comparison)))
    if options.json:
        _publish_json(options.json, _summary(found, slices, comparison))
    if options.picture:
        sheet = evaluation.comparison_image(found.shown, kind)
        _publish("--picture", options.picture, marked_png(sheet))
    if options.page:
        _publish("--page", options.page, evaluation.page(found, slices, comparison, options.compare_with or ""))
    return 0


def _scene_measure(options: Namespace, kind: str) -> "Measure":
    from pipelines import evaluation

    seed = BASELINE_SEED if options.baseline_seed is None else options.baseline_seed
    training = evaluation.TrainingScenes(seed, options.baseline_scenes or BASELINE_SCENES)
    return evaluation.measure_of(kind, training, options.max_depth_m or MAX_DEPTH_M)


def _join(options: Namespace, measure: "Measure | None" = None, **others: Any) -> "Join":
    from pipelines import evaluation

    captions = [options.slice_by_word] if options.slice_by_word else [CAPTION] if options.page else []
    return evaluation.Join(
        **{"condition": options.condition, "predictions": options.predictions, "truth": options.truth, **others},
        kind=options.kind or "",
        members=measure.members if measure else (),
        prediction_column=options.prediction_column or "",
        truth_column=options.truth_column or "",
        labels=tuple(dict.fromkeys([*(options.slice_by or ()), *captions])),
        has_images=bool(options.page),
    )


def _slices(options: Namespace, found: "Evaluation") -> "dict[str, list[Slice]]":
    from pipelines import evaluation

    slices = {column: evaluation.slices_by_column(found, column) for column in options.slice_by or ()}
    if options.slice_by_word:
        slices["word"] = evaluation.slices_by_word(found, options.slice_by_word)
    return slices


def _texts(
    options: Namespace, found: "Evaluation", slices: "dict[str, list[Slice]]", comparison: "Comparison | None"
) -> list[str]:
    from pipelines import evaluation

    return [
        evaluation.accuracy_table(found),
        *([evaluation.intervals_table(found)] if options.intervals else []),
        *(evaluation.slices_table(found.measure, by, parts) for by, parts in slices.items()),
        *([evaluation.comparison_table(found.measure, comparison)] if comparison else []),
    ]


def _summary(found: "Evaluation", slices: "dict[str, list[Slice]]", comparison: "Comparison | None") -> dict[str, Any]:
    from pipelines import evaluation

    result = evaluation.summary(found)
    if slices:
        result["slices"] = [evaluation.slice_summary(part) for parts in slices.values() for part in parts]
    if comparison:
        result["comparison"] = evaluation.comparison_summary(comparison)
    return result


def _check_outputs(options: Namespace) -> None:
    """Check the names of the outputs, and that no file of the user is there. Raises SettingError."""
    if options.json:
        check_replaceable("--json", options.json, _is_our_json)
    endings: dict[str, tuple[str, str, Callable[[bytes], bool]]] = {
        "picture": (".png", "a PNG", is_our_png),
        "page": (".html", "an HTML page", is_our_text),
    }
    for name, (ending, what, is_ours) in endings.items():
        uri = getattr(options, name)
        if uri and not uri.lower().endswith(ending):
            raise SettingError(f"--{name} {uri!r}: the file is {what}. Choose a name that ends in {ending}.")
        if uri:
            check_replaceable(f"--{name}", uri, is_ours)


def _report_unmatched(join: "Join", truth: str = "truth") -> None:
    for keys, words in (
        (join.without_estimate, "scenes have no estimate" if truth == "scene" else "truths have no prediction"),
        (join.without_truth, "estimates have no scene" if truth == "scene" else "predictions have no truth"),
    ):
        if keys:
            more = ", ..." if len(keys) > 5 else ""
            say(f"{len(keys)} {words} and are left out: {clipped(', '.join(keys[:5]))}{more}")


def _is_our_json(content: bytes) -> bool:
    """Return whether a file holds results of this command, in this or an earlier version."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "protocol" in found and bool({"metrics", "correlation"} & found.keys())


def _publish_json(uri: str, content: dict[str, Any]) -> None:
    _publish("--json", uri, json.dumps(content, indent=2).encode() + b"\n")


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
