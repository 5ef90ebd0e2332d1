"""The results of an evaluation as text, as numbers for a file, and as an image.

Tested in tests/jobs/test_evaluate.py.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

from pipelines.errors import clipped
from pipelines.evaluation.accuracy import Evaluation
from pipelines.evaluation.comparison import Comparison
from pipelines.evaluation.join import MAP_MEMBERS, Join, Pair
from pipelines.evaluation.likeness import Likeness
from pipelines.evaluation.map_sets import decode_map
from pipelines.evaluation.measures import ESTIMATE, Measure
from pipelines.evaluation.resampling import LEVEL, RESAMPLES, SEED, Interval, intervals
from pipelines.evaluation.slices import Slice
from unicon.conditions import CONDITIONS

_HOW = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "method": "percentile bootstrap over images"}
NAME_WIDTH = 24
COLUMN_WIDTH = 8


def accuracy_table(evaluation: Evaluation) -> str:
    """Return the metrics of the set, with a row for the estimates and each baseline, and the error by confidence."""
    columns = evaluation.measure.columns
    rows = [
        [name, *(format(numbers[column], style) for column, (_, style) in columns.items()), str(evaluation.images)]
        for name, numbers in evaluation.numbers().items()
    ]
    text = _table(["", *(heading for heading, _ in columns.values()), "images"], rows)
    quarters = evaluation.quarters()
    if not quarters:
        return text
    rows = [[q.name, f"{q.mean_confidence:.3f}", f"{q.error:.4f}", str(q.images)] for q in quarters]
    return f"{text}\n\n{_table(['by confidence', 'mean', evaluation.measure.error_name, 'images'], rows)}"


def intervals_table(evaluation: Evaluation) -> str:
    """Return the metrics of the estimates with their confidence intervals, one line each."""
    measure, numbers = evaluation.measure, evaluation.numbers()[ESTIMATE]
    found = intervals(measure, evaluation.estimates)
    rows = [
        [heading, format(numbers[name], style), *_ends(found[name], style)]
        for name, (heading, style) in measure.columns.items()
    ]
    return _table([f"{LEVEL:.0%} interval", ESTIMATE, "from", "to"], rows)


def slices_table(measure: Measure, by: str, slices: Sequence[Slice]) -> str:
    """Return the metrics of the parts of a set, and the confidence interval of the metric of their errors."""
    heading, style = measure.columns[measure.error_column]
    rows = [
        [
            _fitting(part.value),
            *(format(part.numbers[name], column[1]) for name, column in measure.columns.items()),
            *_ends(part.interval, style),
            str(part.images),
        ]
        for part in slices
    ]
    headings = [name for name, _ in measure.columns.values()]
    return _table([_fitting(f"by {by}"), *headings, f"{heading} from", "to", "images"], rows)


def comparison_table(measure: Measure, comparison: Comparison) -> str:
    """Return the metrics of two sets of predictions, and the confidence intervals of their differences."""
    rows = [
        [
            heading,
            *(format(value, style) for value in (comparison.first[name], comparison.second[name])),
            format(comparison.differences()[name], f"+{style}"),
            *(format(end, f"+{style}") for end in comparison.intervals[name]),
        ]
        for name, (heading, style) in measure.columns.items()
    ]
    return _table([f"the same {comparison.images} images", "this", "other", "difference", "from", "to"], rows)


def likeness_table(likeness: Likeness) -> str:
    """Return the mean correlations of matched and of shuffled pairs."""
    means = [f"{mean:.3f}" for mean in likeness.means().values()]
    row = [f"correlation of {likeness.join.condition}", *means, str(len(likeness.matched))]
    return _table(["", *likeness.means(), "pairs"], [row])


def summary(found: Evaluation | Likeness) -> dict[str, Any]:
    """Return the metrics and their origin for a JSON file; undefined metrics are null."""
    join = found.join
    if isinstance(found, Likeness):
        made = {"protocol": "mean Pearson correlation of maps; shuffled: with the truth of the next pair"}
        pairs = {"pairs": len(found.matched), "constant_truths_left_out": found.left_out}
        ends = {name: _defined_ends(interval) for name, interval in found.intervals().items()}
        return {**made, **pairs, **_origin(join), "correlation": found.means(), "intervals": {**_HOW, **ends}}
    result: dict[str, Any] = {
        **found.measure.settings,
        "images": found.images,
        **_origin(join),
        **found.measure.baseline_settings,
        "metrics": {
            row: {name: _defined(number) for name, number in numbers.items()}
            for row, numbers in found.numbers().items()
        },
    }
    result["intervals"] = {
        **_HOW,
        **{
            row: {name: _defined_ends(interval) for name, interval in ends.items()}
            for row, ends in found.intervals().items()
        },
    }
    counts = {"estimates_scaled": found.scaled, "images_without_error": found.undefined}
    result |= {name: count for name, count in counts.items() if count}
    if quarters := found.quarters():
        result["by_confidence"] = [quarter._asdict() for quarter in quarters]
    return result


def slice_summary(part: Slice) -> dict[str, Any]:
    """Return a part of a set for a JSON file."""
    numbers = {name: _defined(number) for name, number in part.numbers.items()}
    return {**part._asdict(), "numbers": numbers, "interval": _defined_ends(part.interval)}


def comparison_summary(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison for a JSON file; undefined metrics are null."""
    return {
        "images": comparison.images,
        "left_out": comparison.left_out,
        "metrics": {name: _defined(value) for name, value in comparison.first.items()},
        "other_metrics": {name: _defined(value) for name, value in comparison.second.items()},
        "differences": {name: _defined(value) for name, value in comparison.differences().items()},
        "intervals": {name: _defined_ends(interval) for name, interval in comparison.intervals.items()},
    }


def comparison_image(pairs: Sequence[Pair], condition: str) -> Image.Image:
    """Return image, truth and estimate of each scene side by side, two scenes per line."""
    tiles = [_triple(pair, condition) for pair in pairs]
    gap, title = 8, 16
    width, height = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    columns = min(2, len(tiles))
    lines = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, title + lines * (height + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for place, word in enumerate(("image", "truth", "estimate")):
            draw.text((gap + column * (width + gap) + place * width // 3, 4), word, fill="black")
    for number, tile in enumerate(tiles):
        line, column = divmod(number, columns)
        sheet.paste(tile, (gap + column * (width + gap), title + gap + line * (height + gap)))
    return sheet


def _triple(pair: Pair, condition: str) -> Image.Image:
    preview = CONDITIONS[condition].preview
    image = Image.open(io.BytesIO(pair.truth["png"]))
    truth = decode_map(condition, pair.truth[MAP_MEMBERS[condition]])
    tile = Image.new("RGB", (3 * image.width, image.height))
    for place, part in enumerate((image, preview(truth), preview(pair.estimate))):
        tile.paste(part, (place * image.width, 0))
    return tile


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with its first column aligned to the left and the others to the right."""
    widths = [max(COLUMN_WIDTH, len(heading) + 2) for heading in headings[1:]]
    return "\n".join(
        f"{row[0]:<{NAME_WIDTH}}" + "".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True))
        for row in (headings, *rows)
    )


def _ends(interval: Interval, style: str) -> tuple[str, str]:
    return format(interval.low, style), format(interval.high, style)


def _fitting(name: str) -> str:
    """Return a name that fits into the first column."""
    return clipped(name, NAME_WIDTH - 1)


def _defined_ends(interval: Interval) -> list[float | None]:
    return [_defined(end) for end in interval]


def _origin(join: Join) -> dict[str, Any]:
    return {
        "condition": join.condition,
        "scenes_without_estimate": len(join.without_estimate),
        "estimates_without_scene": len(join.without_truth),
        "estimates": dict(join.provenance),
    }


def _defined(number: float) -> float | None:
    return None if math.isnan(number) else number
