# diffusers declares its configurations as plain dictionaries, and `from_config` as returning a tuple.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Training adapters for a Stable Diffusion folder: one or several together, on one process or several.

    training = load_adapters(folder, recipe, device)
    train_adapters(training, source, recipe, checkpoints)

The UNet, the autoencoder and the text encoder are frozen and may be held in lower precision. The parameters of the
adapters are float32, with an exponential moving average. Batches come from a `BatchSource`, states go to
`Checkpoints`, and callbacks receive metrics, validations and finished adapters, so that nothing here knows where data
and results lie.

Source: arXiv 2410.11439, appendix A.
Tested in tests/unicon/training/test_adapter.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from PIL import Image
from transformers import CLIPTokenizer

from unicon.files.autoencoders import vae_scale
from unicon.files.folder import weight_files
from unicon.files.hashes import fingerprint
from unicon.files.inspection import check_model
from unicon.loading import load_part
from unicon.prompts import tokens_cut
from unicon.training.adapter_files import AdapterTraining, install
from unicon.training.batch_gradients import BatchGradients
from unicon.training.batch_loss import BatchLoss
from unicon.training.batches import BatchSource
from unicon.training.checkpoints import Checkpoints
from unicon.training.latent_cache import CachedTextModels, LatentCache
from unicon.training.models import TrainingModels
from unicon.training.recipe import AdapterRecipe
from unicon.training.trainer import OnMetrics, OnStep, Trainer
from unicon.training.validation import validate
from unicon.training.views import PairRow
from unicon.training.workers import Workers

OnValidation = Callable[[int, dict[str, float], dict[str, Image.Image]], None]
"""Receives the number of steps taken, and the numbers and sheets of `unicon.training.validation.Validation`."""


def load_adapters(folder: Path, recipe: AdapterRecipe, device: str) -> AdapterTraining:
    """Load the frozen parts of a model folder and add the adapters of a recipe.

    The frozen weights have the precision of `recipe.fit.autocast_dtype`. The autoencoder has float16 instead of
    bfloat16, whose eight bits of mantissa would show in the latents, and float32 on a CPU. Adapters have float32.

    Raises:
        OSError: A part of the model, or an adapter that the training starts from, is missing.
        ValueError: It is another kind of model, a part is damaged, or such an adapter does not fit.
    """
    dtype = getattr(torch, recipe.fit.autocast_dtype or "float32")
    vae_dtype = torch.float16 if recipe.fit.autocast_dtype and torch.device(device).type == "cuda" else torch.float32
    check_model(folder)
    unet = load_part(folder, "unet", device, dtype)
    vae = load_part(folder, "vae", device, vae_dtype)
    configs = recipe.configs
    for trained in recipe.adapters:
        install(unet, trained, configs[trained.config.name])
    if recipe.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        vae.enable_gradient_checkpointing()
    models = TrainingModels(
        unet=unet,
        text_encoder=load_part(folder, "text_encoder", device, dtype),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
    )
    scale = vae_scale(vae.config)
    multiple = scale * 2 ** (len(unet.config.block_out_channels) - 1)
    return AdapterTraining(folder, models, vae, configs, recipe.make_views(unet.config.sample_size * scale, multiple))


def model_sha256(folder: Path) -> str:
    """SHA-256 over the weights of a model folder, in hexadecimal."""
    return fingerprint(weight_files(folder, []))


def train_adapters(
    training: AdapterTraining,
    source: BatchSource,
    recipe: AdapterRecipe,
    checkpoints: Checkpoints,
    *,
    workers: Workers | None = None,
    cache: LatentCache | None = None,
    held_out: Sequence[PairRow] = (),
    on_metrics: OnMetrics = lambda step, values: None,
    on_validation: OnValidation = lambda step, numbers, sheets: None,
    on_checkpoint: OnStep = lambda step: None,
    wants_checkpoint: Callable[[], bool] | None = None,
) -> None:
    """Train in place, from the latest checkpoint if there is one. On return the adapters hold their averages.

    Args:
        training: The result of `load_adapters` with the same recipe, the same on every worker.
        source: The batches.
        recipe: The recipe.
        checkpoints: Where the state is kept.
        workers: The processes that train together. For None, those of torch's process group.
        cache: Where latents and text embeddings are kept.
        held_out: Rows for validation, which the first worker does every `recipe.validate_every` steps.
        on_metrics: Called by the first worker every `recipe.fit.log_every` steps: losses, `grad_norm`, `learning_rate`,
            `seconds_a_step`.
        on_validation: Called by the first worker after every validation.
        on_checkpoint: Called by every worker after every checkpoint, while the adapters hold their averages.
        wants_checkpoint: Asked by every worker after each step; if any says yes, there is a checkpoint.

    Raises:
        NonFiniteLossError: A loss or a gradient is not finite. Every worker raises it, with the same keys.
        ResumeError: The checkpoint belongs to another training.
        ValueError: There are more workers than rows in a batch, or a source gives wrong rows.
    """
    workers = workers or Workers.current()
    models = training.models if cache is None else CachedTextModels.of(training.models, cache)
    parameters = training.parameters()
    loss = BatchLoss(models, training.vae, recipe, cache)
    gradients = BatchGradients(parameters, loss, source, recipe, workers)
    trainer = Trainer(parameters, recipe.fit, checkpoints, workers, recipe.settings())

    def on_look(step: int) -> None:
        numbers, sheets = validate(training, held_out, recipe.kinds)
        on_validation(step, numbers, sheets)

    trainer.run(
        gradients, on_metrics, on_checkpoint, wants_checkpoint, on_look if held_out else None, recipe.validate_every
    )


def captions_cut(training: AdapterTraining, captions: Sequence[str]) -> dict[str, int]:
    """Adapter -> number of captions that, with its trigger text, the text encoder would cut; without zeros."""
    tokenizer = training.models.tokenizer
    counts = {
        name: sum(count > 0 for count in tokens_cut(tokenizer, [(config.trigger or "") + text for text in captions]))
        for name, config in training.configs.items()
    }
    return {name: count for name, count in counts.items() if count}
