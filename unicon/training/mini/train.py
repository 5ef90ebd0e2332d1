# diffusers and transformers declare the arguments of `to` incorrectly.
# pyright: reportArgumentType=false
"""Training `mini`, the embedded model, from nothing: scenes, autoencoder, text encoder, UNet and adapters.

There is no pretrained UNet to freeze. It is pretrained first (`pretrain.py`), then trained together with the adapters:
every step has images and one kind of their conditions, a share of them without joint attention, so that the UNet keeps
generating images on its own. `unicon.training.adapter` trains an adapter for a frozen UNet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from unicon.adapters.unet import adapter_configs
from unicon.model import UniCon
from unicon.training.auxiliary_heads import ConditionHeads
from unicon.training.fit import fit
from unicon.training.mini.appearance import train_appearance
from unicon.training.mini.models import install_adapters, new_models, read_models, save, with_finest_attention
from unicon.training.mini.pretrain import PretrainLoss, SceneLatents
from unicon.training.mini.recipe import SQUARE, STAGES, MiniRecipe
from unicon.training.mini.scene_cache import SceneArrays, load_cache, render_cache
from unicon.training.mini.scene_maps import PERSON, SceneMaps
from unicon.training.mini.vae import SHARES, encode_maps, new_vae, train_vae
from unicon.training.mini.validation import validate
from unicon.training.models import TrainingModels
from unicon.training.pairs import LatentGroups, MixedLoss, PairLatents, PairLoss, PairSampling
from unicon.training.settings import keep_settings
from unicon.training.single_step import SingleStepLoss

EMPTY_POSES_KEPT = 8
NOISY_POSES = 0.4
"""Upper limit of `noisy_condition_fraction` for poses, which are estimated in several steps."""


def train_mini(
    work: Path, output: Path, recipe: MiniRecipe | None = None, device: str = "cpu", start_from: Path | None = None,
    *, compiles: bool = False,
) -> None:  # fmt: skip
    """Run the whole recipe. If killed and started again, training resumes where it stopped.

    Args:
        work: Receives scenes, checkpoints, logs and validation images.
        output: Receives the diffusers folder with `adapters/*.safetensors`, with weights in float16.
        recipe: The recipe.
        device: The device of the training.
        start_from: A folder such as `output` from whose weights the training continues. For None, it starts from
            nothing.
        compiles: Whether the UNet is compiled while it is trained together with the adapters.
    """
    recipe = _on_device(recipe or MiniRecipe(), device)
    keep_settings(work / "recipe.json", _settings(recipe, start_from), has_begun=any(work.glob("*/state.pt")))
    torch.manual_seed(recipe.seed)
    scenes = dict(_scenes(work, recipe))
    first = next(iter(scenes.values()))
    vae = _trained_vae(work, first, recipe, device, start_from)
    data = [encoded(work / f"latents-{name}.pt", vae, group) for name, group in scenes.items()]
    models = _models(work, vae, first.captions, recipe, device, start_from)
    # On a CPU, fused attention is 5 to 6 times slower than plain products for so few tokens (bfloat16, 64 tokens).
    with sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext():
        heads = ConditionHeads(models.unet, recipe.heads)
        if start_from is None:
            models = _pretrained(models, heads, data, recipe, work / "pretrain")
        install_adapters(models.unet, recipe.shares, recipe.rank, start_from, single_step=recipe.single_step_share > 0)
        for parameter in models.named_parameters().values():
            parameter.requires_grad_(True)
        if start_from is None:
            loss = mixed_loss(models, heads, data, recipe, recipe.aligning)
            fit(trained_parameters(models, heads), loss, recipe.align, work / "align")
        models = replace(models, compiles=compiles)
        source = SceneMaps(list(scenes.values()), data, list(recipe.shares), recipe.person_share)
        train_together(models, heads, vae, data, source, recipe, work / "together", output)
        train_appearance(vae, output, recipe.appearance, work, seed=recipe.seed, count=recipe.appearance_scenes)


def _pretrained(
    models: TrainingModels, heads: ConditionHeads, data: Sequence[SceneLatents], recipe: MiniRecipe, folder: Path
) -> TrainingModels:
    """Train the UNet on single rows, and return the models with one that has attention at its finest level too."""
    loss = PretrainLoss(models, heads, list(data), recipe.pretrain_sampling)
    fit(trained_parameters(models, heads), loss, recipe.pretrain, folder)
    unet = with_finest_attention(models.unet).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return replace(models, unet=unet)


def _settings(recipe: MiniRecipe, start_from: Path | None) -> dict[str, Any]:
    """Settings that cannot change in a work folder. The checkpoint of each stage holds those of its training loop."""
    return {
        "seed": recipe.seed,
        "scenes": {f"{width}x{height}": count for (width, height), count in recipe.scenes.items()},
        "shares": recipe.shares,
        "batch_size": recipe.sampling.batch_size,
        "single_step_share": recipe.single_step_share,
        "start_from": None if start_from is None else str(start_from.resolve()),
    }


def train_together(
    models: TrainingModels,
    heads: ConditionHeads,
    vae: AutoencoderKL,
    data: Sequence[SceneLatents],
    source: SceneMaps,
    recipe: MiniRecipe,
    folder: Path,
    output: Path,
) -> None:
    """Train UNet, text encoder and adapters in place. Every checkpoint writes `output` and is validated."""

    def on_checkpoint(step: int) -> None:
        save(models, vae, recipe.shares, output)
        model = UniCon.from_pretrained(output, device=models.unet.device)
        for kind in recipe.shares:
            validate(model, kind, folder, step, recipe.validation_scenes)

    loss = mixed_loss(models, heads, data, recipe, recipe.sampling)
    if share := recipe.single_step_share:
        single = SingleStepLoss(models, vae, list(recipe.shares), source, recipe.single_step, heads)
        loss = MixedLoss([single, loss], [share, 1 - share])
    fit(trained_parameters(models, heads), loss, recipe.together, folder, on_checkpoint, loss.pairs_a_step)


def trained_parameters(models: TrainingModels, heads: ConditionHeads) -> dict[str, nn.Parameter]:
    """All parameters that a stage trains, by name: those of the models and of the heads."""
    return {**models.named_parameters(), **{f"seeing.{name}": value for name, value in heads.named_parameters()}}


def _on_device(recipe: MiniRecipe, device: str) -> MiniRecipe:
    """The recipe in bfloat16 if the device computes it faster than float32."""
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
    heads: ConditionHeads,
    data: Sequence[SceneLatents],
    recipe: MiniRecipe,
    sampling: PairSampling,
) -> MixedLoss:
    """The loss of one adapter per step, and of the heads on clean images as in pretraining."""
    losses = []
    for kind in recipe.shares:
        trigger = adapter_configs(models.unet)[kind].trigger or ""
        source = LatentGroups([_pairs(group, kind, list(heads.weights)) for group in data], models.unet.device)
        losses.append(PairLoss(models, kind, trigger, source, _sampling_of(kind, sampling), heads))
    return MixedLoss(losses, list(recipe.shares.values()))


def _sampling_of(kind: str, sampling: PairSampling) -> PairSampling:
    """The sampling of steps of one kind."""
    if kind != "pose":
        return sampling
    return replace(sampling, noisy_condition_fraction=min(NOISY_POSES, sampling.noisy_condition_fraction))


def _pairs(scenes: SceneLatents, kind: str, seen: Sequence[str]) -> PairLatents:
    """Images and one condition. Of scenes without a person, whose pose is black, one in `EMPTY_POSES_KEPT` is kept."""
    latents, captions = scenes.latents, scenes.captions
    if kind == "pose":
        rows = [row for row, text in enumerate(captions) if PERSON in text or row % EMPTY_POSES_KEPT == 0]
        latents = {name: latents[name][torch.tensor(rows)] for name in {"image", kind, *seen}}
        captions = tuple(captions[row] for row in rows)
    return PairLatents(latents["image"], latents[kind], captions, {name: latents[name] for name in seen})


def _scenes(work: Path, recipe: MiniRecipe) -> Iterator[tuple[str, SceneArrays]]:
    """Yield (name, scenes) for every group of scenes of one size."""
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
    """Latents of one group of scenes, cached at `path`."""
    if not path.exists():
        torch.save({kind: encode_maps(vae, scenes, kind) for kind in SHARES}, path)
    return SceneLatents(torch.load(path, weights_only=True), scenes.captions)
