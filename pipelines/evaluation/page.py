"""An evaluation as one self-contained HTML page: tables, parts of the set, and the worst and best samples as pictures.

Tested in tests/jobs/test_evaluate_maps.py.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from pipelines.dataset.ownership import marked
from pipelines.errors import clipped
from pipelines.evaluation.accuracy import Evaluation, Extreme
from pipelines.evaluation.comparison import Comparison
from pipelines.evaluation.join import MAP, MAP_MEMBERS, Pair
from pipelines.evaluation.map_sets import CAPTION, decode_map
from pipelines.evaluation.measures import Measure
from pipelines.evaluation.resampling import LEVEL, Interval
from pipelines.evaluation.slices import Slice
from pipelines.images.codec import open_image
from unicon.conditions import CONDITIONS

PICTURE_PX = 320
"""Longest side of a picture."""
MAX_PIXELS = 100_000_000
CAPTION_CHARS, FACT_CHARS = 300, 1000
ROWS_OPEN = 10
"""Longer tables of parts are closed at first."""
STYLE = """
:root { color-scheme: light dark; --text: #1d2126; --soft: #5b6470; --line: #d9dee4; --back: #fff; --card: #f5f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e7eaee; --soft: #a0a9b4; --line: #363d46; --back: #14171b; --card: #1e2329 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 1.5em auto;
  max-width: 72em; padding: 0 1em; overflow-wrap: anywhere }
h1 { font-size: 1.5em; line-height: 1.25 } h2 { font-size: 1.15em; margin: 1.6em 0 .5em } p { margin: .4em 0 }
summary h2 { display: inline-block; margin-bottom: 0 } summary { cursor: pointer; margin-bottom: .5em }
.soft { color: var(--soft) }
.wide { overflow-x: auto } table { border-collapse: collapse; white-space: nowrap }
td, th { border-bottom: 1px solid var(--line); padding: .3em 0 .3em .9em; text-align: right;
  font-variant-numeric: tabular-nums; vertical-align: top }
td:first-child, th:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 6em }
td small { color: var(--soft); display: block }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5em; padding: .8em; margin: .8em 0 }
article p { margin: .2em 0 } .maps { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .5em }
figure { margin: .4em 0 0 } figure img { width: 100%; display: block; border-radius: .25em }
figcaption { color: var(--soft); font-size: .85em }
@media (max-width: 32em) { table { font-size: .85em } td, th { padding-left: .5em } }
"""


def page(
    evaluation: Evaluation, slices: Mapping[str, Sequence[Slice]], comparison: Comparison | None, other: str = ""
) -> bytes:
    """Return the page of an evaluation.

    Args:
        evaluation: The evaluation, with its worst and best samples.
        slices: Name of a division -> its parts.
        comparison: The comparison with other predictions, if there is one.
        other: Where the other predictions are.
    """
    measure, join = evaluation.measure, evaluation.join
    title = f"{join.condition}: accuracy of {evaluation.images} predictions"
    facts = {"predictions": join.predictions, "truth": join.truth, "measure": measure.settings["protocol"]}
    counts = {"truths without a prediction": len(join.without_estimate), "predictions without a truth": len(
        join.without_truth), "predictions of another size, scaled": evaluation.scaled}  # fmt: skip
    facts |= {name: str(count) for name, count in counts.items() if count}
    sections = [
        f"<h1>{_text(title)}</h1>",
        "".join(f'<p><span class="soft">{name}</span> {_text(value, FACT_CHARS)}</p>' for name, value in facts.items()),
        _metrics(evaluation),
        _comparison(measure, comparison, other) if comparison else "",
        *(_slices(measure, by, parts) for by, parts in slices.items()),
        _samples("Worst samples", measure, evaluation.worst),
        _samples("Best samples", measure, evaluation.best),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style>"
    )
    return marked(f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{"".join(sections)}</body></html>\n')


def _metrics(evaluation: Evaluation) -> str:
    columns, numbers, ends = evaluation.measure.columns, evaluation.numbers(), evaluation.intervals()
    rows = [
        [_text(row), *(_cell(values[name], style, ends[row][name]) for name, (_, style) in columns.items())]
        for row, values in numbers.items()
    ]
    note = f'<p class="soft">Below each value: the {LEVEL:.0%} bootstrap interval over images.</p>'
    quarters = [
        [quarter.name, f"{quarter.mean_confidence:.3f}", f"{quarter.error:.4f}", str(quarter.images)]
        for quarter in evaluation.quarters()
    ]
    table = _table(["", *(heading for heading, _ in columns.values())], rows)
    if not quarters:
        return table + note
    headings = ["by confidence", "mean", evaluation.measure.error_name, "images"]
    return f"{table}{note}<h2>Error by confidence</h2>{_table(headings, quarters)}"


def _slices(measure: Measure, by: str, parts: Sequence[Slice]) -> str:
    headings = [by, "images", *(heading for heading, _ in measure.columns.values())]
    rows = [
        [
            _text(part.value),
            str(part.images),
            *(
                _cell(part.numbers[name], style, part.interval if name == measure.error_column else None)
                for name, (_, style) in measure.columns.items()
            ),
        ]
        for part in parts
    ]
    state = " open" if len(rows) <= ROWS_OPEN else ""
    title = f"By {_text(by)} ({len(rows)})"
    return f"<details{state}><summary><h2>{title}</h2></summary>{_table(headings, rows)}</details>"


def _comparison(measure: Measure, found: Comparison, other: str) -> str:
    rows = [
        [heading, format(found.first[name], style), format(found.second[name], style),
         _cell(found.differences()[name], f"+{style}", found.intervals[name])]
        for name, (heading, style) in measure.columns.items()
    ]  # fmt: skip
    about = f'<p class="soft">The other predictions: {_text(other)}. {found.images} images are in both.</p>'
    return f"<h2>Compared with other predictions</h2>{about}{_table(['', 'this', 'other', 'difference'], rows)}"


def _samples(title: str, measure: Measure, extremes: Sequence[Extreme]) -> str:
    if not extremes:
        return ""
    return f"<h2>{title}</h2>{''.join(_sample(measure, each) for each in extremes)}"


def _sample(measure: Measure, extreme: Extreme) -> str:
    pair = extreme.pair
    preview = CONDITIONS[measure.condition].preview
    truth = decode_map(measure.condition, pair.truth.get(MAP) or pair.truth[MAP_MEMBERS[measure.condition]])
    pictures = {"image": _original(pair), "truth": preview(truth), "prediction": preview(pair.estimate)}
    figures = "".join(_figure(name, picture) for name, picture in pictures.items() if picture is not None)
    caption = pair.labels.get(CAPTION)
    text = f'<p class="soft">{_text(str(caption), CAPTION_CHARS)}</p>' if caption else ""
    error = f"{measure.error_name} {extreme.error:.4f}"
    return f'<article><p><b>{_text(pair.key)}</b> {error}</p>{text}<div class="maps">{figures}</div></article>'


def _original(pair: Pair) -> Image.Image | None:
    return open_image(pair.image, MAX_PIXELS)[0] if pair.image else None


def _figure(name: str, picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85)
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<figure><img src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>'


def _cell(value: float, style: str, interval: Interval | None) -> str:
    ends = "" if interval is None else f"<small>{interval.low:{style}} to {interval.high:{style}}</small>"
    return f"{value:{style}}{ends}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the cells are HTML."""
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _text(value: Any, limit_chars: int = 200) -> str:
    """Return foreign text, in one line, as HTML."""
    return escape(clipped(str(value), limit_chars))
