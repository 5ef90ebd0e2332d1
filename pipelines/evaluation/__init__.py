"""Evaluation of maps against the truth, joined by key: accuracy, correlation, intervals, parts and comparisons."""

from pipelines.evaluation.accuracy import Evaluation, evaluate
from pipelines.evaluation.comparison import Comparison, compare
from pipelines.evaluation.join import MAP_MEMBERS, Join, Pair, has_tars
from pipelines.evaluation.likeness import Likeness, compare_maps
from pipelines.evaluation.map_measures import map_measure_of
from pipelines.evaluation.measures import ESTIMATE, Measure, TrainingScenes, measure_of
from pipelines.evaluation.page import page
from pipelines.evaluation.report import (
    accuracy_table,
    comparison_image,
    comparison_summary,
    comparison_table,
    intervals_table,
    likeness_table,
    slice_summary,
    slices_table,
    summary,
)
from pipelines.evaluation.slices import Slice, slices_by_column, slices_by_word

__all__ = [
    "ESTIMATE",
    "MAP_MEMBERS",
    "Comparison",
    "Evaluation",
    "Join",
    "Likeness",
    "Measure",
    "Pair",
    "Slice",
    "TrainingScenes",
    "accuracy_table",
    "compare",
    "compare_maps",
    "comparison_image",
    "comparison_summary",
    "comparison_table",
    "evaluate",
    "has_tars",
    "intervals_table",
    "likeness_table",
    "map_measure_of",
    "measure_of",
    "page",
    "slice_summary",
    "slices_by_column",
    "slices_by_word",
    "slices_table",
    "summary",
]
