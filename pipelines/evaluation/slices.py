"""Parts of an evaluated set: by the values of a column, or by the words of the captions.

Tested in tests/pipelines/evaluation/test_slices.py.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines.errors import SettingError, clipped
from pipelines.evaluation.accuracy import Evaluation
from pipelines.evaluation.resampling import Interval, intervals

MAX_VALUES = 20
"""Number of values of a column that are parts of their own; the rarer ones are one part together."""
NO_VALUE, OTHER_VALUES = "(no value)", "(other values)"
MAX_WORDS = 30
MIN_IMAGES, MAX_SHARE = 5, 0.9
"""Words in fewer images, or in a larger share of the images, are left out."""
WORD = re.compile(r"[^\W\d_]{2,}(?:['’-][^\W\d_]+)*")
_LITTLE = (
    "a an and are as at behind between by for from has have in into is it its near of on or over that the their there",
    "this to two under up was which with",
)
UNTELLING = frozenset(word for line in _LITTLE for word in line.split())
"""Words that say nothing about what is in an image."""


class Slice(NamedTuple):
    """The metrics of the estimates of a part of the images."""

    by: str
    """The column, or "word"."""
    value: str
    images: int
    numbers: dict[str, float]
    interval: Interval
    """Of the metric in `Measure.error_column`."""


def slices_by_column(evaluation: Evaluation, column: str) -> list[Slice]:
    """Return a part for each value of a column; for each quarter of the images if it has many different numbers.

    Raises:
        SettingError: No sample has such a column.
    """
    values = _values(evaluation, column, "--slice-by")
    groups: dict[str, list[int]] = {}
    names = _names(values)
    order = Counter(names).most_common() if _are_few(values) else sorted(zip(names, values, strict=True), key=_value)
    for name, _ in order:
        groups.setdefault(name, [])
    for at, name in enumerate(names):
        groups[name].append(at)
    return [_slice(evaluation, column, name, images) for name, images in groups.items()]


def slices_by_word(evaluation: Evaluation, column: str) -> list[Slice]:
    """Return a part for each of the most frequent words of the captions, those with the highest errors first.

    Raises:
        SettingError: No sample has such a column.
    """
    captions = _values(evaluation, column, "--slice-by-word")
    images_of: dict[str, list[int]] = {}
    for at, caption in enumerate(captions):
        for word in {found.lower() for found in WORD.findall(str(caption or ""))} - UNTELLING:
            images_of.setdefault(word, []).append(at)
    most = MAX_SHARE * len(captions)
    usable = {word: images for word, images in images_of.items() if MIN_IMAGES <= len(images) <= most}
    frequent = sorted(usable, key=lambda word: (-len(usable[word]), word))[:MAX_WORDS]
    errors = evaluation.measure.errors(evaluation.estimates)
    known = {word: errors[usable[word]][np.isfinite(errors[usable[word]])] for word in frequent}
    ordered = sorted(frequent, key=lambda word: -float(known[word].mean()) if len(known[word]) else np.inf)
    return [_slice(evaluation, "word", word, usable[word]) for word in ordered]


def _values(evaluation: Evaluation, column: str, option: str) -> list[Any]:
    if column not in evaluation.join.found_labels:
        raise SettingError(
            f"{option} {column!r}: neither the predictions nor the truth have such a column (in tars: a field of the "
            ".json member, and .txt for captions). Correct its name."
        )
    return evaluation.labels[column]


def _names(values: Sequence[Any]) -> list[str]:
    """Return the name of the part to which each image belongs."""
    if not _are_few(values):
        return _quarters(values)
    texts = [NO_VALUE if value is None else clipped(str(value)) for value in values]
    kept = {text for text, _ in Counter(texts).most_common(MAX_VALUES)}
    return [text if text in kept else OTHER_VALUES for text in texts]


def _are_few(values: Sequence[Any]) -> bool:
    """Return whether each value is a part of its own: unless they are many different numbers."""
    known = [value for value in values if value is not None]
    are_numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)
    return not are_numbers or len(set(known)) <= MAX_VALUES


def _value(named: tuple[str, Any]) -> float:
    """Return the place of a value among numbers; those without a number are the last."""
    return np.inf if named[1] is None or np.isnan(named[1]) else float(named[1])


def _quarters(values: Sequence[Any]) -> list[str]:
    known = np.array([np.nan if value is None else float(value) for value in values])
    edges = np.quantile(known[np.isfinite(known)], [0, 0.25, 0.5, 0.75, 1])
    names = [f"{low:g} to {high:g}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    places = np.searchsorted(edges[1:-1], known, side="right")
    return [
        names[place] if np.isfinite(value) else NO_VALUE for place, value in zip(places.tolist(), known, strict=True)
    ]


def _slice(evaluation: Evaluation, by: str, value: str, images: Sequence[int]) -> Slice:
    measure, scores = evaluation.measure, [evaluation.estimates[at] for at in images]
    interval = intervals(measure, scores)[measure.error_column]
    return Slice(by, value, len(images), measure.numbers(scores), interval)
