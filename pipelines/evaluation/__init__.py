"""Estimated conditions against the truth, joined by key: how good they are, or how alike."""

from pipelines.evaluation.accuracy import Evaluation, evaluate
from pipelines.evaluation.join import Join, Pair
from pipelines.evaluation.likeness import Likeness, compare_maps
from pipelines.evaluation.measures import ESTIMATE, Measure, TrainingScenes, measure_of
from pipelines.evaluation.report import accuracy_table, alike_table, picture, summary

__all__ = [
    "ESTIMATE",
    "Evaluation",
    "Join",
    "Likeness",
    "Measure",
    "Pair",
    "TrainingScenes",
    "accuracy_table",
    "alike_table",
    "compare_maps",
    "evaluate",
    "measure_of",
    "picture",
    "summary",
]
