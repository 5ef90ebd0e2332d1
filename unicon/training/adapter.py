"""Training one adapter for a Stable Diffusion folder on the user's own pictures, with the published recipe.

The UNet, the autoencoder and the text encoder are frozen and may be held in lower precision; the adapter's parameters
are float32, with an exponential moving average.

Source: arXiv 2410.11439, appendix A (rank 64, batch 16, 20 epochs, min-SNR 5, text dropout 0.1, independent timesteps).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from unicon.adapter import AdapterConfig, add_adapter, named_adapter_parameters
from unicon.checkpoint import save_adapter
from unicon.conditions import CONDITIONS
from unicon.folder import find_adapters, fingerprint, weight_files
from unicon.images import resize_map
from unicon.model import UniCon
from unicon.training.annotators import ANNOTATIONS
from unicon.training.fit import FitConfig, fit
from unicon.training.pairs import PairLoss, PairSampling, TrainingModels
from unicon.training.photographs import Photograph, PhotographPairs, Views, read_picture

EPOCHS = 20
"""Published."""
LEARNING_RATE = 1e-4
HELD_OUT = 4
"""The most pictures that are kept out of the training to look at."""
SHEET_HEIGHT_PX = 256
SETTINGS_FILE, TRAINING_FOLDER = "settings.json", "training"
"""In the work folder."""


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """Every choice of an adapter's training."""

    condition: str
    """Kind of condition and name of the adapter: edge, depth or pose."""
    fit: FitConfig
    rank: int = 64
    """Of every LoRA."""
    sampling: PairSampling = PairSampling()
    resolution_px: int | None = None
    """Side of the square whose area the pictures have; the model's own when None."""
    gradient_checkpointing: bool = False
    """Less memory, more time."""


@dataclass(frozen=True)
class AdapterTraining:
    """A frozen model with a new adapter, on its device."""

    folder: Path
    """Of the model."""
    models: TrainingModels
    vae: AutoencoderKL
    config: AdapterConfig
    views: Views


def published_steps(pictures: int, batch_size: int) -> int:
    """Optimiser steps of the published 20 epochs."""
    return max(1, math.ceil(EPOCHS * pictures / batch_size))


def split_photographs(photographs: Sequence[Photograph]) -> tuple[list[Photograph], list[Photograph]]:
    """(to train on, held out): one picture of eight is held out, at least one and at most ``HELD_OUT``, evenly spread.

    Raises:
        ValueError: fewer than two photographs.
    """
    if len(photographs) < 2:
        raise ValueError(
            f"Training needs at least two pictures, one of them to look at results; got {len(photographs)}. Add more."
        )
    count = min(HELD_OUT, max(1, len(photographs) // 8))
    places = {index * len(photographs) // count for index in range(count)}
    training = [photograph for place, photograph in enumerate(photographs) if place not in places]
    return training, [photographs[place] for place in sorted(places)]


def load_for_training(folder: Path, recipe: AdapterRecipe, device: str) -> AdapterTraining:
    """Load the frozen parts of a model folder and add the new adapter.

    The frozen weights have the precision of ``recipe.fit.autocast_dtype``; the autoencoder has float16 instead of
    bfloat16 (eight bits of mantissa would show in the latents), and float32 on a CPU; the adapter has float32.

    Raises:
        OSError: a part of the model is missing. ValueError: the UNet is not Stable Diffusion 1.x's or 2.x's.
    """
    dtype = getattr(torch, recipe.fit.autocast_dtype or "float32")
    vae_dtype = torch.float16 if recipe.fit.autocast_dtype and torch.device(device).type == "cuda" else torch.float32
    options: dict[str, Any] = {"use_safetensors": True, "torch_dtype": dtype}
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **options).to(device)
    unet.requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", **{**options, "torch_dtype": vae_dtype})
    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, dtype=dtype)
    kind = recipe.condition
    trigger = CONDITIONS[kind].trigger if kind in CONDITIONS else f"{kind}_map, "
    config = AdapterConfig(name=kind, rank=recipe.rank, trigger=trigger)
    add_adapter(unet, config)
    for parameter in named_adapter_parameters(unet, kind).values():
        parameter.data = parameter.data.float()
    if recipe.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    models = TrainingModels(
        unet=unet,
        text_encoder=text_encoder.to(device).eval().requires_grad_(False),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )
    vae = vae.to(device).eval().requires_grad_(False)
    return AdapterTraining(folder, models, vae, config, _views(unet, vae, recipe))


def _views(unet: UNet2DConditionModel, vae: AutoencoderKL, recipe: AdapterRecipe) -> Views:
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    return Views(
        resolution_px=recipe.resolution_px or unet.config.sample_size * scale,
        multiple=scale * 2 ** (len(unet.config.block_out_channels) - 1),
        flip_probability=0.5 if ANNOTATIONS[recipe.condition].mirrors else 0.0,
    )


def model_sha256(folder: Path) -> str:
    """sha256 over the weights of a model folder, in hexadecimal."""
    return fingerprint(weight_files(folder, []))


def keep_settings(work: Path, settings: dict[str, Any]) -> None:
    """Write down what a work folder trains; refuse to go on from its checkpoint with anything else.

    Raises:
        ValueError: the folder holds a checkpoint of a training with other settings.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / SETTINGS_FILE
    if path.exists() and (work / TRAINING_FOLDER / "state.pt").exists():
        known = json.loads(path.read_text())
        other = {key: (known.get(key), value) for key, value in settings.items() if known.get(key) != value}
        if other:
            raise ValueError(
                f"A work folder goes on with the training it began; {work} differs in (its, this run's) {other}. "
                "Give the same settings, or another work folder."
            )
    path.write_text(json.dumps(settings, indent=2) + "\n")


def train_adapter(
    training: AdapterTraining, photographs: Sequence[Photograph], recipe: AdapterRecipe, work: Path, output: Path
) -> None:
    """Train in place and write ``output``; killed and started again, it goes on where it stopped.

    Args:
        training: from ``load_for_training`` with the same recipe.
        photographs: what to learn from; a few are held out to look at.
        recipe: the numbers.
        work: ``TRAINING_FOLDER`` in it receives checkpoints, log.jsonl, validation.jsonl and validation-STEP.png.
        output: the adapter, one safetensors file, float16; replaced at every checkpoint.
    """
    learned, held_out = split_photographs(photographs)
    name, folder = training.config.name, work / TRAINING_FOLDER
    source = PhotographPairs(learned, training.vae, training.views)
    loss = PairLoss(training.models, name, training.config.trigger or "", source, recipe.sampling)

    def look(step: int) -> None:
        save_output(training, output)
        validate(training, held_out, output, folder, step)

    fit(named_adapter_parameters(training.models.unet, name), loss, recipe.fit, folder, look)
    save_output(training, output)


def save_output(training: AdapterTraining, output: Path) -> None:
    """Write the adapter in float16, whole or not at all."""
    unet, name = training.models.unet, training.config.name
    temporary = output.with_name(output.name + ".tmp")
    tensors = {key: value.detach().half() for key, value in named_adapter_parameters(unet, name).items()}
    save_adapter(unet, name, temporary, tensors=tensors)
    temporary.replace(output)


def validate(
    training: AdapterTraining, photographs: Sequence[Photograph], adapter: Path, folder: Path, step: int
) -> None:
    """Draw image, condition and estimate of held-out photographs; log the mean absolute difference of the maps.

    A kind that ``UniCon.estimate`` does not know (pose) is drawn without its estimate.
    """
    kind, side_px = training.config.kind, training.views.resolution_px
    images = [read_picture(photograph.picture, side_px) for photograph in photographs]
    conditions = [read_picture(photograph.condition, side_px) for photograph in photographs]
    rows = [list(pair) for pair in zip(images, conditions, strict=True)]
    if kind in CONDITIONS:
        paths = find_adapters(training.folder, {training.config.name: adapter})
        model = UniCon.from_pretrained(training.folder, adapters=paths, device=training.models.unet.device)
        estimates = model.estimate(images, training.config.name, resolution_px=side_px, batch_size=1)
        errors = []
        for row, estimate in zip(rows, estimates, strict=True):
            truth = resize_map(CONDITIONS[kind].decode(row[1]), row[0].size)
            errors.append(float(np.abs(estimate - truth).mean()))
            row[1:] = [CONDITIONS[kind].preview(truth), CONDITIONS[kind].preview(estimate)]
        line = json.dumps({"step": step, "validation_mean_absolute_difference": round(sum(errors) / len(errors), 5)})
        print(line, flush=True)
        with (folder / "validation.jsonl").open("a") as file:
            file.write(line + "\n")
    draw_sheet(rows).save(folder / f"validation-{step:06d}.png")


def draw_sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of pictures, all of one height, on white."""
    scaled = [[_to_height(picture, SHEET_HEIGHT_PX) for picture in row] for row in rows]
    width = max(sum(picture.width for picture in row) for row in scaled)
    sheet = Image.new("RGB", (width, SHEET_HEIGHT_PX * len(scaled)), "white")
    for place, row in enumerate(scaled):
        left = 0
        for picture in row:
            sheet.paste(picture, (left, place * SHEET_HEIGHT_PX))
            left += picture.width
    return sheet


def _to_height(picture: Image.Image, height_px: int) -> Image.Image:
    return picture.resize((max(1, round(height_px * picture.width / picture.height)), height_px))
