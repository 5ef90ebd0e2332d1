"""The recipe of ``mini``, the embedded model: scenes, autoencoder, text encoder, UNet and adapters, from nothing.

``mini`` shows that the machinery works and how well; it knows rendered scenes and is no model for photographs.

UNet, text encoder and adapters are trained together, since there is no pretrained UNet to freeze: every step shows
images and one kind of their conditions, a share of them without joint attention, so that the UNet also learns to draw
on its own. An adapter for a frozen UNet is trained by ``unicon.training.adapter``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unicon.adapter import adapter_configs
from unicon.conditions import CONDITIONS
from unicon.metrics import depth_metrics, mean_metrics
from unicon.model import UniCon
from unicon.scenes import Rendering, render, sample_scene
from unicon.training.fit import FitConfig, fit
from unicon.training.mini_model import install_adapters, new_models, read_models, save
from unicon.training.pairs import (
    LatentGroups,
    MixedLoss,
    PairLatents,
    PairLoss,
    PairSampling,
    TrainingModels,
    encode_latents,
)
from unicon.training.scene_cache import SceneArrays, load_cache, render_cache
from unicon.training.vae import SHARES, map_pixels, new_vae, train_vae

SQUARE, WIDE, TALL = (128, 128), (160, 96), (96, 160)
VALIDATION_SEED = 2
TRUTHS: dict[str, Callable[[Rendering], np.ndarray]] = {
    "depth": lambda scene: scene.inverse_depth,
    "edge": lambda scene: scene.edges.astype(np.float32),
    "pose": lambda scene: scene.pose.astype(np.float32) / 255,
}
"""The exact condition of a scene, as a map of its kind."""


@dataclass(frozen=True, kw_only=True)
class MiniRecipe:
    """Every number that decides what ``mini`` becomes."""

    scenes: dict[tuple[int, int], int] = field(default_factory=lambda: {SQUARE: 12000, WIDE: 1000, TALL: 1000})
    """Scenes rendered, by (width, height) in pixels."""
    seed: int = 1
    """Seed of the square scenes; other sizes follow with seed + 9, seed + 10."""
    shares: dict[str, float] = field(default_factory=lambda: {"depth": 0.6, "edge": 0.25, "pose": 0.15})
    """Adapters, and the share of the steps that each gets."""
    vae: FitConfig = FitConfig(
        steps=3000, learning_rate=2e-3, warmup_steps=50, ema_decay=0.995, autocast_dtype="bfloat16"
    )
    vae_batch_size: int = 16
    """Crops a step."""
    vae_crop_px: int = 64
    validation_scenes: int = 16
    """Scenes of another seed that every checkpoint is measured on."""
    block_out_channels: tuple[int, ...] = (64, 128, 128)
    rank: int = 12
    """Of the adapters' LoRA."""
    together: FitConfig = FitConfig(
        steps=8000,
        learning_rate=1e-3,
        matrix_learning_rate=6e-3,
        warmup_steps=50,
        final_learning_rate_fraction=0.03,
        ema_decay=0.995,
        autocast_dtype="bfloat16",
        checkpoint_every=400,
    )
    sampling: PairSampling = PairSampling(
        batch_size=32,
        text_dropout=0.05,
        caption_dropout=0.5,
        clean_image_fraction=0.8,
        clean_condition_fraction=0.1,
        noisy_condition_fraction=0.85,
        unjoined_fraction=0.1,
        min_snr_gamma=None,
        alignment_weight=0.1,
        partner_weight=0.7,
    )


def train_mini(
    work: Path, output: Path, recipe: MiniRecipe | None = None, device: str = "cpu", start_from: Path | None = None
) -> None:
    """Run the whole recipe; killed and started again, it goes on where it stopped.

    Args:
        work: scenes, checkpoints, logs and validation pictures.
        output: receives the diffusers folder with ``adapters/*.safetensors``, weights in float16.
        recipe: the numbers.
        device: where to train.
        start_from: a folder such as ``output``, whose weights are trained on; None: everything from nothing.
    """
    recipe = recipe or MiniRecipe()
    torch.manual_seed(recipe.seed)
    scenes = list(_scenes(work, recipe))
    vae = _trained_vae(work, scenes[0], recipe, device, start_from)
    data = [encoded(work, index, vae, group) for index, group in enumerate(scenes)]
    models = _models(work, vae, scenes[0].captions, recipe, device, start_from)
    losses = [_loss(models, kind, data, recipe) for kind in recipe.shares]
    parameters = dict(nn.ModuleDict({"unet": models.unet, "text_encoder": models.text_encoder}).named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(True)

    def look(step: int) -> None:
        save(models, vae, recipe.shares, output)
        model = UniCon.from_pretrained(output, device=device)
        for kind in recipe.shares:
            validate(model, kind, work / "together", step, recipe.validation_scenes)

    # fused attention is slower than plain products for so few tokens on a CPU: 5 to 6 times, bfloat16, 64 tokens
    with sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext():
        fit(parameters, MixedLoss(losses, list(recipe.shares.values())), recipe.together, work / "together", look)


def _models(
    work: Path,
    vae: AutoencoderKL,
    captions: Sequence[str],
    recipe: MiniRecipe,
    device: str,
    start_from: Path | None,
) -> TrainingModels:
    """The models with their adapters on the device."""
    if start_from is not None:
        models = read_models(start_from)
    else:
        models = new_models(work / "tokenizer", vae, captions, recipe.block_out_channels, SQUARE[0])
    install_adapters(models.unet, recipe.shares, recipe.rank, start_from)
    models.unet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    models.text_encoder.to(device)
    return models


def _loss(models: TrainingModels, kind: str, data: Sequence[SceneLatents], recipe: MiniRecipe) -> PairLoss:
    """The loss of one adapter of the UNet."""
    trigger = adapter_configs(models.unet)[kind].trigger or ""
    groups = [PairLatents(group.latents["image"], group.latents[kind], group.captions) for group in data]
    return PairLoss(models, kind, trigger, LatentGroups(groups), recipe.sampling)


def validate(model: UniCon, kind: str, folder: Path, step: int, count: int) -> None:
    """Estimate conditions of scenes never trained on: print the errors, draw image, truth and estimates."""
    scenes = [render(sample_scene(VALIDATION_SEED, index)) for index in range(count)]
    images = [Image.fromarray(scene.image) for scene in scenes]
    truths = [TRUTHS[kind](scene) for scene in scenes]
    rows = [images, [CONDITIONS[kind].preview(truth) for truth in truths]]
    for steps in (1, 4, 10):
        estimates = model.estimate(images, kind, num_inference_steps=steps)
        rows.append([CONDITIONS[kind].preview(estimate) for estimate in estimates])
        error = np.mean([np.abs(e - np.float32(t)).mean() for e, t in zip(estimates, truths, strict=True)])
        record = {"step": step, "condition": kind, "num_inference_steps": steps, "mean_absolute_error": float(error)}
        if kind == "depth":
            found = [depth_metrics(e, s.depth_m) for e, s in zip(estimates, scenes, strict=True)]
            record |= asdict(mean_metrics(found))
        print(json.dumps(record), flush=True)
    sheet = np.concatenate([np.concatenate([np.asarray(picture) for picture in row], 1) for row in rows])
    Image.fromarray(sheet).save(folder / f"{kind}-{step:06d}.png")


def _scenes(work: Path, recipe: MiniRecipe) -> Iterator[SceneArrays]:
    for place, (size, count) in enumerate(recipe.scenes.items()):
        seed = recipe.seed if place == 0 else recipe.seed + 8 + place
        root = work / f"scenes-{seed}-{size[0]}x{size[1]}"
        render_cache(root, seed, count, size)
        yield load_cache(root, count)


def _trained_vae(
    work: Path, scenes: SceneArrays, recipe: MiniRecipe, device: str, start_from: Path | None
) -> AutoencoderKL:
    folder = work / "vae" if start_from is None else start_from / "vae"
    if not (folder / "config.json").exists():
        vae = new_vae().to(device)
        train_vae(vae, scenes, recipe.vae, work / "vae-training", recipe.vae_batch_size, recipe.vae_crop_px)
        vae.save_pretrained(folder)
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return vae.eval().requires_grad_(False)


class SceneLatents(NamedTuple):
    """Pictures and maps of one group of scenes, encoded."""

    latents: dict[str, Tensor]
    """(S, c, h, w) float16 by what is shown: ``image``, ``depth``, ``edge``, ``pose``."""
    captions: tuple[str, ...]


def encoded(work: Path, index: int, vae: AutoencoderKL, scenes: SceneArrays) -> SceneLatents:
    """Latents of one group of scenes, from the disk where they were computed before."""
    path = work / f"latents-{index}.pt"
    if not path.exists():
        torch.save({kind: _encode_maps(vae, scenes, kind) for kind in SHARES}, path)
    return SceneLatents(torch.load(path, weights_only=True), scenes.captions)


def _encode_maps(vae: AutoencoderKL, scenes: SceneArrays, kind: str, batch_size: int = 64) -> Tensor:
    parts = []
    with torch.autocast(vae.device.type, torch.bfloat16):
        for start in range(0, len(scenes.captions), batch_size):
            pixels = torch.from_numpy(map_pixels(scenes, kind, np.s_[start : start + batch_size])).permute(0, 3, 1, 2)
            parts.append(encode_latents(vae, pixels))
    return torch.cat(parts)
