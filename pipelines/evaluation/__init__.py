"""Evaluation of estimated conditions against the truth, joined by key: accuracy or correlation."""

from pipelines.evaluation.accuracy import Evaluation, evaluate
from pipelines.evaluation.join import Join, Pair
from pipelines.evaluation.likeness import Likeness, compare_maps
from pipelines.evaluation.measures import ESTIMATE, Measure, TrainingScenes, measure_of
from pipelines.evaluation.report import accuracy_table, comparison_image, likeness_table, summary

__all__ = [
    "ESTIMATE",
    "Evaluation",
    "Join",
    "Likeness",
    "Measure",
    "Pair",
    "TrainingScenes",
    "accuracy_table",
    "likeness_table",
    "compare_maps",
    "evaluate",
    "measure_of",
    "comparison_image",
    "summary",
]
