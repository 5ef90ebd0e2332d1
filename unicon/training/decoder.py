# diffusers declares its outputs as tuples and its configurations as plain dictionaries.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""Training a small decoder of condition maps (`unicon.decoders`) from the autoencoder of a model.

The maps are encoded once. A step decodes the latents of a few maps with a little noise, so that the decoder is also
good at latents that a model has predicted, and compares the result with what the autoencoder's own decoder makes of the
latents without noise.

Shapes: S maps of one kind, B maps of a step, H W pixels, c latent channels, h w latent size.

Tested in tests/unicon/training/test_decoder.py and tests/jobs/test_train_decoder.py.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from unicon.autoencoders import Autoencoder
from unicon.decoders import MapDecoder, small_decoder_config
from unicon.files.autoencoders import is_tiny, vae_scale, vae_values
from unicon.files.hashes import fingerprint
from unicon.files.inspection import check_model
from unicon.files.weights import WEIGHT_STEMS, part_files
from unicon.limits import ModelLimits
from unicon.loading import load_module
from unicon.training.decoder_comparison import DecoderComparison, compare
from unicon.training.decoder_maps import CodedMaps, code_maps
from unicon.training.fit import FitConfig, fit
from unicon.training.mini.vae import reconstruction_loss
from unicon.training.photographs import find_images

MIN_WIDTH = 20
"""Default width for autoencoders that are narrow themselves."""
TRAINING_FOLDER = "training"
"""Name in the work folder."""


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe:
    """Every choice of a decoder's training."""

    fit: FitConfig
    finest_width: int
    """See `unicon.decoders.small_decoder_config`."""
    batch_size: int = 16
    max_noise: float = 0.3
    """Largest standard deviation of the noise on the latents, which have about 1 themselves."""


class Teacher(NamedTuple):
    """The autoencoder that a small decoder imitates."""

    vae: Autoencoder
    native_px: int
    """Side of the square that the model was trained for."""

    @property
    def finest_width(self) -> int:
        """The width of a small decoder: half of the width of the autoencoder's at full resolution, or `MIN_WIDTH`."""
        values = vae_values(self.vae.config)
        width = values["decoder_block_out_channels"][-1] if is_tiny(values) else values["block_out_channels"][0]
        return max(MIN_WIDTH, width // 2)


def load_teacher(folder: Path, device: str) -> Teacher:
    """Load the autoencoder of a model folder, in float16 on a GPU and in float32 on a CPU.

    Raises:
        OSError: A part of the model is missing.
        ValueError: It is another kind of model, or a part is damaged.
    """
    check_model(folder)
    dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
    return Teacher(load_module(folder / "vae", "vae", device, dtype), ModelLimits.of_folder(folder).native_px)


def data_settings(folder: Path, maps: Mapping[str, Path], scenes: int) -> dict[str, Any]:
    """The settings of a training that follow from the model folder and the maps: kind -> folder, or scenes."""
    names = {kind: sorted(find_images(place)) for kind, place in maps.items()}
    return {
        "vae_sha256": fingerprint([(path.name, path) for path in part_files(folder / "vae", "vae")]),
        "maps": {kind: f"{len(found)} of names {_short_hash(found)}" for kind, found in names.items()} or scenes,
    }


def _short_hash(names: list[str]) -> str:
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]


def distill(
    teacher: Teacher, maps: Mapping[str, Tensor], recipe: DecoderRecipe, work: Path, output: Path
) -> DecoderComparison:
    """Train a small decoder, from the beginning or from the latest checkpoint, write it, and compare it.

    Args:
        teacher: The autoencoder.
        maps: Kind -> maps (S, 3, H, W) in [-1, 1].
        recipe: How to train.
        work: Receives checkpoints and a log in training/.
        output: Folder for config.json and the weights, in float16.

    Raises:
        ResumeError: The checkpoint is of a training with other settings.
    """
    vae = teacher.vae
    coded = {kind: code_maps(vae, rows) for kind, rows in maps.items()}
    torch.manual_seed(recipe.fit.seed)
    scale, channels = vae_scale(vae.config), vae_values(vae.config)["latent_channels"]
    decoder = MapDecoder(**small_decoder_config(channels, scale, recipe.finest_width)).to(vae.device)
    train_decoder(decoder, {kind: rows.training() for kind, rows in coded.items()}, recipe, work / TRAINING_FOLDER)
    save_decoder(decoder, output)
    stored = load_module(output, "map_decoder", vae.device, vae.dtype)
    return compare(vae, stored, {kind: rows.held_out() for kind, rows in coded.items()})


def save_decoder(decoder: MapDecoder, output: Path) -> None:
    """Write a decoder in float16. Files are replaced as a whole, the configuration last."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        decoder.save_config(folder)
        weights = {name: weight.half().cpu().contiguous() for name, weight in decoder.state_dict().items()}
        save_file(weights, Path(folder, f"{WEIGHT_STEMS['vae']}.safetensors"), metadata={"format": "pt"})
        for path in sorted(Path(folder).iterdir(), key=lambda path: path.suffix == ".json"):
            os.replace(path, output / path.name)


def train_decoder(decoder: MapDecoder, maps: Mapping[str, CodedMaps], recipe: DecoderRecipe, folder: Path) -> None:
    """Train in place from the beginning or from the latest checkpoint in `folder`. All kinds of maps are equally often.

    Args:
        decoder: The decoder, on its device, in float32.
        maps: Kind -> its maps for training.
        recipe: How to train.
        folder: Receives checkpoints and a log, see `fit`.
    """
    kinds = list(maps.values())

    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        drawn = torch.randint(len(kinds), (recipe.batch_size,), generator=generator).tolist()
        rows = [int(torch.randint(len(kinds[kind].latents), (), generator=generator)) for kind in drawn]
        latents = torch.stack([kinds[kind].latents[row] for kind, row in zip(drawn, rows, strict=True)]).float()
        target = torch.stack([kinds[kind].decoded[row] for kind, row in zip(drawn, rows, strict=True)]).float()
        noise = torch.randn(latents.shape, generator=generator)
        strength = torch.rand((len(latents), 1, 1, 1), generator=generator) * recipe.max_noise
        decoded = decoder((latents + strength * noise).to(decoder.device, memory_format=torch.channels_last))
        return reconstruction_loss(target.to(decoder.device), decoded)

    decoder.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit(dict(decoder.named_parameters()), loss, recipe.fit, folder)
    decoder.eval()
