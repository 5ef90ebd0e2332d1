# diffusers declares its configurations as plain dictionaries, and `from_config` as returning a tuple.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Training an adapter for a Stable Diffusion folder on the user's own images, with the published recipe.

The UNet, the autoencoder and the text encoder are frozen and may be held in lower precision. The parameters of the
adapter are float32, with an exponential moving average.

Source: arXiv 2410.11439, appendix A (rank 64, batch 16, 20 epochs, min-SNR 5, text dropout 0.1, independent timesteps).
Tested in tests/jobs/test_train_adapter.py.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTokenizer

from unicon.adapters.checkpoint import save_adapter
from unicon.adapters.config import DEFAULT_ESTIMATION_STEPS, AdapterConfig
from unicon.adapters.unet import add_adapter, named_adapter_parameters
from unicon.autoencoders import Autoencoder
from unicon.conditions import CONDITIONS
from unicon.files.autoencoders import vae_scale
from unicon.files.folder import weight_files
from unicon.files.hashes import fingerprint
from unicon.files.inspection import check_model
from unicon.images import resize_map
from unicon.loading import load_part
from unicon.model import UniCon
from unicon.prompts import tokens_cut
from unicon.training import settings
from unicon.training.annotators import ANNOTATIONS
from unicon.training.fit import FitConfig, fit
from unicon.training.models import TrainingModels
from unicon.training.pairs import MixedLoss, PairLoss, PairSampling, PairsLoss
from unicon.training.photograph_pairs import PhotographMaps, PhotographPairs, Views
from unicon.training.photographs import Photograph, read_image
from unicon.training.sheets import draw_sheet
from unicon.training.single_step import SingleStepLoss, SingleStepSampling

EPOCHS = 20
"""Epochs of the published recipe."""
LEARNING_RATE = 1e-4
HELD_OUT = 4
"""Largest number of images that are held out of the training for validation."""
SETTINGS_FILE, TRAINING_FOLDER = "settings.json", "training"
"""Names in the work folder."""


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """Every choice of an adapter's training."""

    condition: str
    """Kind of condition and name of the adapter: edge, depth or pose."""
    fit: FitConfig
    rank: int = 64
    """Rank of every LoRA."""
    sampling: PairSampling = PairSampling()
    resolution_px: int | None = None
    """Side of the square whose area the images have. For None, the model's own."""
    gradient_checkpointing: bool = False
    """Whether to save memory at the cost of time."""
    annotator: str = ""
    """What made the conditions; empty if the user did."""
    single_step_share: float = 0.0
    """Share of the steps that train estimates in one step through the decoder (`unicon.training.single_step`), in
    [0, 1]. The others train pairs. Above 0, the adapter recommends one step."""

    def __post_init__(self) -> None:
        if not 0 <= self.single_step_share <= 1:
            raise ValueError(f"single_step_share lies in [0, 1]; got {self.single_step_share}. 0.5 is usual.")


@dataclass(frozen=True)
class AdapterTraining:
    """A frozen model with a new adapter, on its device."""

    folder: Path
    """Folder of the model."""
    models: TrainingModels
    vae: Autoencoder
    config: AdapterConfig
    views: Views


def published_steps(images: int, batch_size: int) -> int:
    """Number of optimizer steps of the published 20 epochs."""
    return max(1, math.ceil(EPOCHS * images / batch_size))


def split_photographs(photographs: Sequence[Photograph]) -> tuple[list[Photograph], list[Photograph]]:
    """Split photographs into (training, held out).

    One of eight is held out, at least one and at most `HELD_OUT`, evenly spread.

    Raises:
        ValueError: There are fewer than two photographs.
    """
    if len(photographs) < 2:
        raise ValueError(
            f"Training needs at least two images, one of them for validation; got {len(photographs)}. Add more."
        )
    count = min(HELD_OUT, max(1, len(photographs) // 8))
    places = {index * len(photographs) // count for index in range(count)}
    training = [photograph for place, photograph in enumerate(photographs) if place not in places]
    return training, [photographs[place] for place in sorted(places)]


def load_for_training(folder: Path, recipe: AdapterRecipe, device: str) -> AdapterTraining:
    """Load the frozen parts of a model folder and add the new adapter.

    The frozen weights have the precision of `recipe.fit.autocast_dtype`. The autoencoder has float16 instead of
    bfloat16, whose eight bits of mantissa would show in the latents, and float32 on a CPU. The adapter has float32.

    Raises:
        OSError: A part of the model is missing.
        ValueError: It is another kind of model, or a part is damaged.
    """
    dtype = getattr(torch, recipe.fit.autocast_dtype or "float32")
    vae_dtype = torch.float16 if recipe.fit.autocast_dtype and torch.device(device).type == "cuda" else torch.float32
    check_model(folder)
    unet = load_part(folder, "unet", device, dtype)
    vae = load_part(folder, "vae", device, vae_dtype)
    kind = recipe.condition
    trigger = CONDITIONS[kind].trigger if kind in CONDITIONS else f"{kind}_map, "
    single_step = recipe.single_step_share > 0
    config = AdapterConfig(
        name=kind, rank=recipe.rank, trigger=trigger, annotator=recipe.annotator, single_step=single_step,
        estimation_steps=1 if single_step else DEFAULT_ESTIMATION_STEPS,
    )  # fmt: skip
    add_adapter(unet, config)
    for parameter in named_adapter_parameters(unet, kind).values():
        parameter.data = parameter.data.float()
    vae.requires_grad_(False)
    if recipe.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        vae.enable_gradient_checkpointing()
    models = TrainingModels(
        unet=unet,
        text_encoder=load_part(folder, "text_encoder", device, dtype),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )
    return AdapterTraining(folder, models, vae, config, _views(unet, vae, recipe))


def _views(unet: UNet2DConditionModel, vae: Autoencoder, recipe: AdapterRecipe) -> Views:
    scale = vae_scale(vae.config)
    return Views(
        resolution_px=recipe.resolution_px or unet.config.sample_size * scale,
        multiple=scale * 2 ** (len(unet.config.block_out_channels) - 1),
        flip_probability=0.5 if ANNOTATIONS[recipe.condition].mirrors else 0.0,
    )


def model_sha256(folder: Path) -> str:
    """SHA-256 over the weights of a model folder, in hexadecimal."""
    return fingerprint(weight_files(folder, []))


def keep_settings(work: Path, new: dict[str, Any]) -> None:
    """Write the settings of a training into its work folder.

    Raises:
        ValueError: The folder holds a checkpoint of a training with other settings.
    """
    path = work / SETTINGS_FILE
    if path.exists() and not _is_ours(path):
        raise ValueError(
            f"A work folder holds the files of its training; {path} was not written by one and is not replaced. Choose "
            "another work folder."
        )
    settings.keep_settings(path, new, has_begun=(work / TRAINING_FOLDER / "state.pt").exists())


def _is_ours(settings: Path) -> bool:
    """Whether a file holds the settings of a training, in the form of this or an earlier version."""
    try:
        known = json.loads(settings.read_text())
    except (ValueError, OSError):
        return False
    return isinstance(known, dict) and {"condition", "images", "model_sha256"} <= known.keys()


def train_adapter(
    training: AdapterTraining, photographs: Sequence[Photograph], recipe: AdapterRecipe, work: Path, output: Path
) -> None:
    """Train in place and write `output`. If killed and started again, training resumes where it stopped.

    Args:
        training: The result of `load_for_training` with the same recipe.
        photographs: The training data. A few photographs are held out for validation.
        recipe: The recipe.
        work: Its `TRAINING_FOLDER` receives checkpoints, log.jsonl, validation.jsonl and validation-STEP.png.
        output: The adapter, one safetensors file in float16, replaced at every checkpoint.
    """
    learned, held_out = split_photographs(photographs)
    name, folder = training.config.name, work / TRAINING_FOLDER
    loss = make_loss(training, learned, recipe)
    _say_captions_cut(training, learned)

    def on_checkpoint(step: int) -> None:
        save_output(training, output)
        validate(training, held_out, folder, step)

    parameters = named_adapter_parameters(training.models.unet, name)
    fit(parameters, loss, recipe.fit, folder, on_checkpoint, loss.pairs_a_step)
    save_output(training, output)


def make_loss(training: AdapterTraining, photographs: Sequence[Photograph], recipe: AdapterRecipe) -> PairsLoss:
    """The loss of pairs, of estimates in one step, or of both by their shares."""
    config, share = training.config, recipe.single_step_share
    source = PhotographPairs(photographs, training.vae, training.views)
    pairs = PairLoss(training.models, config.name, config.trigger or "", source, recipe.sampling)
    if not share:
        return pairs
    sampling = SingleStepSampling(batch_size=recipe.sampling.batch_size)
    maps = PhotographMaps(source, config.name)
    single = SingleStepLoss(training.models, training.vae, [config.name], maps, sampling)
    return single if share == 1 else MixedLoss([single, pairs], [share, 1 - share])


def _say_captions_cut(training: AdapterTraining, photographs: Sequence[Photograph]) -> None:
    trigger, tokenizer = training.config.trigger or "", training.models.tokenizer
    cut = sum(count > 0 for count in tokens_cut(tokenizer, [trigger + each.caption for each in photographs]))
    if cut:
        print(
            f"{cut} of {len(photographs)} captions, with {trigger!r} before them, are longer than the "
            f"{tokenizer.model_max_length} tokens that the text encoder takes, and are cut",
            file=sys.stderr,
        )


def save_output(training: AdapterTraining, output: Path) -> None:
    """Write the adapter in float16, atomically."""
    unet, name = training.models.unet, training.config.name
    temporary = output.with_name(output.name + ".tmp")
    tensors = {key: value.detach().half() for key, value in named_adapter_parameters(unet, name).items()}
    save_adapter(unet, name, temporary, tensors=tensors)
    temporary.replace(output)


def validate(training: AdapterTraining, photographs: Sequence[Photograph], folder: Path, step: int) -> None:
    """Draw image, condition and estimate of held-out photographs, and log the mean absolute difference of the maps.

    The model in memory makes the estimates; nothing is loaded. A kind that `UniCon.estimate` does not support is drawn
    without its estimate.
    """
    kind, side_px = training.config.kind, training.views.resolution_px
    images = [read_image(photograph.image, side_px) for photograph in photographs]
    conditions = [read_image(photograph.condition, side_px) for photograph in photographs]
    rows = [list(pair) for pair in zip(images, conditions, strict=True)]
    if kind in CONDITIONS:
        dtype = training.models.unet.dtype
        with torch.autocast(training.models.unet.device.type, dtype, enabled=dtype != torch.float32):
            estimates = model_in_training(training).estimate(
                images, training.config.name, resolution_px=side_px, batch_size=1
            )
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


def model_in_training(training: AdapterTraining) -> UniCon:
    """The frozen model with its adapter in the current state. It shares all weights with the training."""
    models = training.models
    return UniCon(
        unet=models.unet,
        vae=training.vae,
        text_encoder=models.text_encoder,
        tokenizer=models.tokenizer,
        scheduler=models.scheduler,
        description={},
    )
