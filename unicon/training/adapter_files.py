"""Reading and writing the adapters of a training, and its model in memory.

Tested in tests/unicon/training/test_adapter.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn

from unicon.adapters.checkpoint import install_adapter, save_adapter, unet_shape
from unicon.adapters.config import AdapterConfig, read_config
from unicon.adapters.official import read_official, save_official
from unicon.adapters.unet import add_adapter, named_adapter_parameters
from unicon.autoencoders import Autoencoder
from unicon.files.adapters import is_official
from unicon.model import UniCon
from unicon.training.models import TrainingModels
from unicon.training.recipe import TrainedAdapter
from unicon.training.views import Views

OFFICIAL_FOLDER, CARD_FILE = "official", "README.md"
"""Names beside the adapter files."""


@dataclass(frozen=True)
class AdapterTraining:
    """A frozen model with adapters in training, on its device."""

    folder: Path
    """Folder of the model."""
    models: TrainingModels
    vae: Autoencoder
    configs: Mapping[str, AdapterConfig]
    """Configurations of the adapters in training by name."""
    views: Views
    """How parts of images are drawn."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """All parameters in training, by the names of adapter and parameter."""
        unet = self.models.unet
        return {
            f"{name}.{key}": parameter
            for name in self.configs
            for key, parameter in named_adapter_parameters(unet, name).items()
        }

    def model(self) -> UniCon:
        """The frozen model with the adapters in their current state. It shares all weights with the training."""
        models = self.models
        return UniCon(
            unet=models.unet, vae=self.vae, text_encoder=models.text_encoder, tokenizer=models.tokenizer,
            scheduler=models.scheduler, description={},
        )  # fmt: skip


def install(unet: UNet2DConditionModel, trained: TrainedAdapter, config: AdapterConfig) -> None:
    """Add an adapter to the UNet in place, new or with the weights that the training starts from, in float32.

    Raises:
        FileNotFoundError: A part of the adapter that the training starts from is missing.
        ValueError: It is no adapter, or has another shape, or belongs to another base model.
    """
    if trained.start_from is None:
        add_adapter(unet, config)
    else:
        install_adapter(unet, config, _weights(unet, trained, config), str(trained.start_from))
    for parameter in named_adapter_parameters(unet, config.name).values():
        parameter.data = parameter.data.float()


def _weights(unet: UNet2DConditionModel, trained: TrainedAdapter, config: AdapterConfig) -> dict[str, Tensor]:
    """The weights that the training of an adapter starts from."""
    path = trained.start_from
    assert path is not None
    if is_official(path):
        found, tensors = read_official(path, config.name)
    else:
        found, shape = read_config(path)
        ours = unet_shape(unet)
        if shape != ours:
            differences = {key: (shape.get(key), ours[key]) for key in ours if shape.get(key) != ours[key]}
            raise ValueError(
                f"A training starts from an adapter of the same base model; {path} differs in (its, this UNet's) "
                f"{differences}. Give the base model that it was trained with, or start with a new adapter."
            )
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iterator)
    fixed = ("rank", "alpha", "projection", "condition_adapter")
    other = {
        key: (getattr(found, key), getattr(config, key)) for key in fixed if getattr(found, key) != getattr(config, key)
    }
    if other:
        raise ValueError(
            f"A training keeps the form of the adapter it starts from; {path} differs in (its, this training's) "
            f"{other}. Give the same values."
        )
    return tensors


def write_adapter(training: AdapterTraining, name: str, path: Path) -> None:
    """Write an adapter in float16 to a safetensors file, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    save_adapter(training.models.unet, name, temporary, tensors=_half(training, name))
    temporary.replace(path)


def write_adapters(training: AdapterTraining, folder: Path, card: str = "") -> list[Path]:
    """Write all adapters in float16 into a folder, in the format of this project and in the official one.

    Args:
        training: The training.
        folder: Receives NAME.safetensors, official/NAME/ and README.md.
        card: Text of README.md. There is none for an empty text.

    Returns:
        The written files. Adapters whose alpha is not their rank have no official format.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in training.configs.items():
        write_adapter(training, name, folder / f"{name}.safetensors")
        if config.alpha == config.rank:
            place = folder / OFFICIAL_FOLDER / name
            place.mkdir(parents=True, exist_ok=True)
            save_official(training.models.unet, name, place, tensors=_half(training, name))
    if card:
        (folder / CARD_FILE).write_text(card)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _half(training: AdapterTraining, name: str) -> dict[str, Tensor]:
    parameters = named_adapter_parameters(training.models.unet, name)
    return {key: value.detach().half() for key, value in parameters.items()}
