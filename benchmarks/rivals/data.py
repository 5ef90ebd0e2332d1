"""The scenes that every rival is trained on, and those that none has seen.

Shapes: S scenes, c h w latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering
from unicon.training.mini.pretrain import SceneLatents
from unicon.training.mini.scene_cache import SceneArrays, load_cache, render_cache
from unicon.training.mini.scene_maps import PERSON, SceneMaps
from unicon.training.mini.vae import encode_maps
from unicon.training.pairs import LatentGroups, PairLatents

TRAINING_SEED, UNSEEN_SEED = 41, 101
"""Seeds of the scenes for training and for the measurements."""
DEPTH = "depth"


@dataclass(frozen=True)
class TrainingScenes:
    """Rendered scenes of 128 x 128 pixels in memory, with the latents of their images and depth maps."""

    arrays: SceneArrays
    latents: SceneLatents

    @cached_property
    def pairs(self) -> LatentGroups:
        """The scenes as pairs of latents."""
        latents = self.latents.latents
        return LatentGroups([PairLatents(latents["image"], latents[DEPTH], self.latents.captions)])

    @cached_property
    def maps(self) -> SceneMaps:
        """The scenes as latents with the pixels of their depth maps. Scenes with people are as frequent as they are."""
        share = float(np.mean([PERSON in text for text in self.latents.captions]))
        return SceneMaps([self.arrays], [self.latents], [DEPTH], share)


def training_scenes(work: Path, vae: AutoencoderKL, count: int) -> TrainingScenes:
    """Render and encode the first `count` scenes of the training seed, or read them from the work folder."""
    root = work / f"scenes-{TRAINING_SEED}"
    render_cache(root, TRAINING_SEED, count, workers=1)
    arrays = load_cache(root, count)
    path = work / f"latents-{TRAINING_SEED}-{count}.pt"
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        torch.save({kind: encode_maps(vae, arrays, kind) for kind in ("image", DEPTH)}, temporary)
        temporary.replace(path)
    return TrainingScenes(arrays, SceneLatents(torch.load(path, weights_only=True), arrays.captions))


def unseen_scenes(count: int) -> list[Rendering]:
    """The first scenes of a seed that had no part in any training, rendered with 128 x 128 pixels."""
    return [render(sample_scene(UNSEEN_SEED, index)) for index in range(count)]
