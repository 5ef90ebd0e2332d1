"""Accuracy of estimated conditions, measured on ground truth. Pure NumPy, with one module per kind of map.

Tested in tests/unicon/metrics/test_metrics.py.
"""

from unicon.metrics.color import color_likeness
from unicon.metrics.correlation import correlation
from unicon.metrics.depth import (
    MAX_DEPTH_M,
    DepthMetrics,
    best_affine,
    depth_metrics,
    mean_metrics,
    valid_pixels,
    vertical_ramp,
)
from unicon.metrics.edge import (
    THRESHOLDS,
    EdgeCounts,
    EdgeMetrics,
    best_edge_metrics,
    edge_counts,
    edge_metrics,
    gradient_magnitude,
)
from unicon.metrics.pose import PoseMetrics, pose_metrics, total_pose_metrics

__all__ = [
    "MAX_DEPTH_M",
    "THRESHOLDS",
    "DepthMetrics",
    "EdgeCounts",
    "EdgeMetrics",
    "PoseMetrics",
    "best_affine",
    "best_edge_metrics",
    "color_likeness",
    "correlation",
    "depth_metrics",
    "edge_counts",
    "edge_metrics",
    "gradient_magnitude",
    "mean_metrics",
    "pose_metrics",
    "total_pose_metrics",
    "valid_pixels",
    "vertical_ramp",
]
