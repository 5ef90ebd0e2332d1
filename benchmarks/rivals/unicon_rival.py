"""UniCon: an adapter of low rank for the frozen base, in the published recipe or with estimates in one step.

Sources: arXiv 2410.11439; the estimates in one step follow arXiv 2409.11355.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.rivals.base import MODEL, Base
from benchmarks.rivals.data import DEPTH, TrainingScenes
from benchmarks.rivals.recipe import DECODED_SHARE, LATENT_WEIGHT, MAP_WEIGHT, pair_sampling
from benchmarks.rivals.rival import Rival
from unicon.adapters.checkpoint import save_adapter
from unicon.adapters.config import AdapterConfig
from unicon.adapters.unet import add_adapter, named_adapter_parameters
from unicon.model import UniCon
from unicon.training.pairs import MixedLoss, PairLoss
from unicon.training.single_step import SingleStepLoss, SingleStepSampling

RANK = 12
"""Rank of the LoRAs, as in `mini`."""
ADAPTER_FILE = "depth.safetensors"


class UniConTasks:
    """What a UniCon model makes, with the methods of `UniCon`."""

    model: UniCon

    def estimate(self, images: list[np.ndarray], steps: int) -> list[np.ndarray]:
        """See `Estimates`."""
        pictures = [Image.fromarray(image) for image in images]
        return self.model.estimate(pictures, DEPTH, seeds=range(len(images)), num_views=1, num_inference_steps=steps)

    def synthesize(self, maps: list[np.ndarray], captions: list[str], steps: int, guidance: float) -> list[np.ndarray]:
        """See `Synthesizes`."""
        found = self.model.synthesize(
            {DEPTH: maps}, captions, seeds=range(len(maps)), num_inference_steps=steps, guidance_scale=1.0,
            condition_guidance_scale=guidance,
        )  # fmt: skip
        return [np.asarray(each.image) for each in found]

    def generate(self, captions: list[str], steps: int, guidance: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """See `Generates`."""
        found = self.model.generate_pairs(
            captions, DEPTH, seeds=range(len(captions)), num_inference_steps=steps, guidance_scale=1.0,
            condition_guidance_scale=guidance,
        )  # fmt: skip
        return [np.asarray(each.image) for each in found], [each.conditions[DEPTH] for each in found]


class UniConRival(UniConTasks, Rival):
    """An adapter for depth. It is measured as users run it: from its file."""

    def __init__(self, base: Base, scenes: TrainingScenes, batch_size: int, *, single_step: bool) -> None:
        self.base = base
        config = AdapterConfig(name=DEPTH, rank=RANK, estimation_steps=1, single_step=single_step)
        add_adapter(base.models.unet, config)
        self.trained = named_adapter_parameters(base.models.unet, DEPTH)
        self.loss = PairLoss(base.models, DEPTH, config.trigger or "", scenes.pairs, pair_sampling(batch_size))
        if single_step:
            sampling = SingleStepSampling(
                batch_size=batch_size, decoded_fractions={DEPTH: DECODED_SHARE}, map_weights={DEPTH: MAP_WEIGHT},
                latent_weights={DEPTH: LATENT_WEIGHT},
            )  # fmt: skip
            single = SingleStepLoss(base.models, base.vae, [DEPTH], scenes.maps, sampling)
            self.loss = MixedLoss([single, self.loss], [0.5, 0.5])

    def save(self, folder: Path) -> None:
        save_adapter(self.base.models.unet, DEPTH, folder / ADAPTER_FILE)

    def load(self, folder: Path) -> None:
        adapters = {DEPTH: folder / ADAPTER_FILE}
        self.model = UniCon.from_pretrained(self.base.folder, adapters=adapters, device="cpu", dtype="float32")


class ShippedMini(UniConTasks):
    """`mini` with its own adapter, which was trained much longer, together with its base."""

    def __init__(self) -> None:
        self.model = UniCon.from_pretrained(MODEL, device="cpu", dtype="float32")
