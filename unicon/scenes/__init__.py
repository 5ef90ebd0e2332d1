"""Procedural scenes with exact depth, edges and captions: the ground truth that accuracy claims are measured on."""

from unicon.scenes.layout import Scene, sample_scene
from unicon.scenes.render import Rendering, render

__all__ = ["Rendering", "Scene", "render", "sample_scene"]
