"""The recipe of ``mini``, the embedded model: scenes, autoencoder, text encoder, UNet and adapters, from nothing.

``mini`` shows that the machinery works and how well; it knows rendered scenes and is no model for photographs.

There is no pretrained UNet to freeze: it is made first (``pretrain.py``), then trained on together with the adapters:
every step shows images and one kind of their conditions, a share of them without joint attention, so that the UNet
goes on drawing on its own. An adapter for a frozen UNet is trained by ``unicon.training.adapter``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unicon.adapters.unet import adapter_configs
from unicon.conditions import CONDITIONS
from unicon.metrics.depth import depth_metrics, mean_metrics
from unicon.model import UniCon
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering
from unicon.training.auxiliary_heads import Seeing
from unicon.training.fit import FitConfig, fit
from unicon.training.mini.appearance import train_appearance
from unicon.training.mini.models import install_adapters, new_models, read_models, save, with_finest_attention
from unicon.training.mini.pretrain import PretrainLoss, PretrainSampling, SceneLatents
from unicon.training.mini.scene_cache import SceneArrays, load_cache, render_cache
from unicon.training.mini.vae import SHARES, encode_maps, new_vae, train_vae
from unicon.training.pairs import (
    LatentGroups,
    MixedLoss,
    PairLatents,
    PairLoss,
    PairSampling,
    TrainingModels,
)
from unicon.training.settings import keep_settings

SQUARE, WIDE, TALL = (128, 128), (160, 96), (96, 160)
VALIDATION_SEED = 2
EMPTY_POSES_KEPT = 8
PERSON = "mannequin"
"""How captions call a person."""
STAGES = ("vae", "pretrain", "align", "together", "appearance")
TRUTHS: dict[str, Callable[[Rendering], np.ndarray]] = {
    "depth": lambda scene: scene.inverse_depth,
    "edge": lambda scene: scene.edges.astype(np.float32),
    "pose": lambda scene: scene.pose.astype(np.float32) / 255,
}
"""The exact condition of a scene, as a map of its kind."""


JOINT = PairSampling(
    batch_size=24,
    text_dropout=0.05,
    caption_dropout=0.3,
    clean_image_fraction=0.5,
    clean_condition_fraction=0.3,
    noisy_condition_fraction=0.8,
    unjoined_fraction=0.1,
    min_snr_gamma=None,
    alignment_weight=0.1,
    seeing_weight=1.0,
)
"""What the steps see in which all is trained together."""
NOISY_POSES = 0.4
"""``noisy_condition_fraction`` of poses where it is lower: they are estimated in several steps."""


@dataclass(frozen=True, kw_only=True)
class MiniRecipe:
    """Every number that decides what ``mini`` becomes."""

    scenes: dict[tuple[int, int], int] = field(default_factory=lambda: {SQUARE: 12000, WIDE: 1000, TALL: 1000})
    """Scenes rendered, by (width, height) in pixels."""
    seed: int = 1
    """Seed of the square scenes; other sizes follow with seed + 9, seed + 10."""
    shares: dict[str, float] = field(default_factory=lambda: {"depth": 0.75, "edge": 0.13, "pose": 0.12})
    """Adapters, and the share of the steps that each gets."""
    vae: FitConfig = FitConfig(steps=3000, learning_rate=2e-3, warmup_steps=50, ema_decay=0.995)
    vae_batch_size: int = 16
    """Crops a step."""
    vae_crop_px: int = 64
    validation_scenes: int = 16
    """Scenes of another seed that every checkpoint is measured on."""
    block_out_channels: tuple[int, ...] = (64, 128, 128)
    rank: int = 12
    """Of the adapters' LoRA."""
    pretrain: FitConfig = FitConfig(
        steps=2400,
        learning_rate=1.5e-3,
        matrix_learning_rate=8e-3,
        warmup_steps=30,
        final_learning_rate_fraction=0.1,
        ema_decay=0.99,
        checkpoint_every=100,
        log_every=10,
    )
    pretrain_sampling: PretrainSampling = PretrainSampling(batch_size=32, seeing_fraction=0.8125)
    seeing: dict[str, float] = field(default_factory=lambda: {"depth": 1.0, "edge": 0.25, "pose": 0.5})
    """What clean pictures show in every stage, see `Seeing`."""
    align: FitConfig = FitConfig(
        steps=150,
        learning_rate=1e-3,
        matrix_learning_rate=6e-3,
        warmup_steps=10,
        final_learning_rate_fraction=0.3,
        ema_decay=0.9,
        checkpoint_every=50,
        log_every=10,
    )
    """Joint attention finds its place. Every token of every pair teaches it, so four pairs a step are enough."""
    aligning: PairSampling = replace(
        JOINT, batch_size=4, clean_image_fraction=0.9, clean_condition_fraction=0.1, unjoined_fraction=0.0,
        alignment_weight=1.0, seeing_weight=0.5,
    )  # fmt: skip
    together: FitConfig = FitConfig(
        steps=800,
        learning_rate=8e-4,
        matrix_learning_rate=4e-3,
        warmup_steps=30,
        final_learning_rate_fraction=0.03,
        ema_decay=0.99,
        checkpoint_every=200,
        log_every=10,
    )
    sampling: PairSampling = JOINT
    appearance: FitConfig = FitConfig(
        steps=600,
        learning_rate=7e-4,
        matrix_learning_rate=3e-3,
        warmup_steps=20,
        final_learning_rate_fraction=0.05,
        ema_decay=0.98,
        checkpoint_every=200,
        log_every=10,
    )
    """The adapter alone, the UNet frozen."""
    appearance_scenes: int = 3000
    """Square scenes of ``seed``, in two views."""


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
    recipe = _on_device(recipe or MiniRecipe(), device)
    keep_settings(work / "recipe.json", _settings(recipe, start_from), has_begun=any(work.glob("*/state.pt")))
    torch.manual_seed(recipe.seed)
    scenes = dict(_scenes(work, recipe))
    first = next(iter(scenes.values()))
    vae = _trained_vae(work, first, recipe, device, start_from)
    data = [encoded(work / f"latents-{name}.pt", vae, group) for name, group in scenes.items()]
    models = _models(work, vae, first.captions, recipe, device, start_from)
    # fused attention is slower than plain products for so few tokens on a CPU: 5 to 6 times, bfloat16, 64 tokens
    with sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext():
        seeing = Seeing(models.unet, recipe.seeing)
        if start_from is None:
            loss = PretrainLoss(models, seeing, data, recipe.pretrain_sampling)
            fit(trained_parameters(models, seeing), loss, recipe.pretrain, work / "pretrain")
            unet = with_finest_attention(models.unet).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            models = replace(models, unet=unet)
        install_adapters(models.unet, recipe.shares, recipe.rank, start_from)
        for parameter in models.named_parameters().values():
            parameter.requires_grad_(True)
        if start_from is None:
            loss = mixed_loss(models, seeing, data, recipe, recipe.aligning)
            fit(trained_parameters(models, seeing), loss, recipe.align, work / "align")
        train_together(models, seeing, vae, data, recipe, work / "together", output)
        train_appearance(vae, output, recipe.appearance, work, seed=recipe.seed, count=recipe.appearance_scenes)


def _settings(recipe: MiniRecipe, start_from: Path | None) -> dict[str, Any]:
    """What a work folder cannot change; each stage's checkpoint keeps the numbers of its loop."""
    return {
        "seed": recipe.seed,
        "scenes": {f"{width}x{height}": count for (width, height), count in recipe.scenes.items()},
        "shares": recipe.shares,
        "batch_size": recipe.sampling.batch_size,
        "start_from": None if start_from is None else str(start_from.resolve()),
    }


def train_together(
    models: TrainingModels,
    seeing: Seeing,
    vae: AutoencoderKL,
    data: Sequence[SceneLatents],
    recipe: MiniRecipe,
    folder: Path,
    output: Path,
) -> None:
    """Train UNet, text encoder and adapters in place; every checkpoint writes ``output`` and is measured."""

    def look(step: int) -> None:
        save(models, vae, recipe.shares, output)
        model = UniCon.from_pretrained(output, device=models.unet.device)
        for kind in recipe.shares:
            validate(model, kind, folder, step, recipe.validation_scenes)

    loss = mixed_loss(models, seeing, data, recipe, recipe.sampling)
    fit(trained_parameters(models, seeing), loss, recipe.together, folder, look)


def trained_parameters(models: TrainingModels, seeing: Seeing) -> dict[str, nn.Parameter]:
    """Everything that a stage trains, by name: the models' parameters and the heads that read conditions."""
    return {**models.named_parameters(), **{f"seeing.{name}": value for name, value in seeing.named_parameters()}}


def _on_device(recipe: MiniRecipe, device: str) -> MiniRecipe:
    """The recipe in bfloat16 where the device computes it faster than float32."""
    if not (device.startswith("cuda") or (device == "cpu" and torch.cpu._is_avx512_bf16_supported())):
        return recipe
    parts = {name: replace(getattr(recipe, name), autocast_dtype="bfloat16") for name in STAGES}
    return replace(recipe, **parts)


def _models(
    work: Path,
    vae: AutoencoderKL,
    captions: Sequence[str],
    recipe: MiniRecipe,
    device: str,
    start_from: Path | None,
) -> TrainingModels:
    """The models on the device, without adapters."""
    if start_from is not None:
        models = read_models(start_from)
    else:
        models = new_models(work / "tokenizer", vae, captions, recipe.block_out_channels, SQUARE[0])
    models.unet.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    models.text_encoder.to(device)
    return models


def mixed_loss(
    models: TrainingModels,
    seeing: Seeing,
    data: Sequence[SceneLatents],
    recipe: MiniRecipe,
    sampling: PairSampling,
) -> MixedLoss:
    """One adapter's loss a step; clean images go on showing what they showed in pretraining."""
    losses = []
    for kind in recipe.shares:
        trigger = adapter_configs(models.unet)[kind].trigger or ""
        source = LatentGroups([_pairs(group, kind, list(seeing.weights)) for group in data])
        losses.append(PairLoss(models, kind, trigger, source, _sampling_of(kind, sampling), seeing))
    return MixedLoss(losses, list(recipe.shares.values()))


def _sampling_of(kind: str, sampling: PairSampling) -> PairSampling:
    """What steps of one kind see."""
    if kind != "pose":
        return sampling
    return replace(sampling, noisy_condition_fraction=min(NOISY_POSES, sampling.noisy_condition_fraction))


def _pairs(scenes: SceneLatents, kind: str, seen: Sequence[str]) -> PairLatents:
    """Images and one condition; of the scenes without a person, whose pose is black, one in `EMPTY_POSES_KEPT`."""
    latents, captions = scenes.latents, scenes.captions
    if kind == "pose":
        rows = [row for row, text in enumerate(captions) if PERSON in text or row % EMPTY_POSES_KEPT == 0]
        latents = {name: latents[name][torch.tensor(rows)] for name in {"image", kind, *seen}}
        captions = tuple(captions[row] for row in rows)
    return PairLatents(latents["image"], latents[kind], captions, {name: latents[name] for name in seen})


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


def _scenes(work: Path, recipe: MiniRecipe) -> Iterator[tuple[str, SceneArrays]]:
    """Groups of scenes of one size, by seed and size."""
    for place, (size, count) in enumerate(recipe.scenes.items()):
        seed = recipe.seed if place == 0 else recipe.seed + 8 + place
        name = f"{seed}-{size[0]}x{size[1]}"
        root = work / f"scenes-{name}"
        render_cache(root, seed, count, size)
        yield name, load_cache(root, count)


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


def encoded(path: Path, vae: AutoencoderKL, scenes: SceneArrays) -> SceneLatents:
    """Latents of one group of scenes, kept at ``path`` and taken from there where they were computed before."""
    if not path.exists():
        torch.save({kind: encode_maps(vae, scenes, kind) for kind in SHARES}, path)
    return SceneLatents(torch.load(path, weights_only=True), scenes.captions)
