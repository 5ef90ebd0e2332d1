"""Procedural scenes with exact depth, edges and captions, the ground truth on which accuracy is measured.

Tested in tests/unicon/scenes/test_render.py.
"""

from unicon.scenes.layout import Scene, sample_scene
from unicon.scenes.render import Rendering, render

__all__ = ["Rendering", "Scene", "render", "sample_scene"]
