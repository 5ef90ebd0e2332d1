# transformers does not declare that `output_loading_info` adds a second result.
# pyright: reportGeneralTypeIssues=false
"""Loading the parts of a model folder strictly: the files hold exactly the tensors of the modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from unicon.adapters.checkpoint import load_adapter
from unicon.adapters.merge import merge_in_place
from unicon.adapters.official import load_official
from unicon.adapters.unet import adapter_configs
from unicon.autoencoders import Autoencoder
from unicon.decoders import MapDecoder
from unicon.files.adapter_inspection import check_adapter
from unicon.files.adapters import is_official
from unicon.files.autoencoders import is_tiny
from unicon.files.decoders import map_decoder_folder
from unicon.files.folder import Lora
from unicon.files.headers import read_json
from unicon.files.inspection import ModelShape, check_model
from unicon.files.loras import LoraLayer, lora_layers
from unicon.files.shapes import current_name
from unicon.files.weights import part_files, variant_of


class Parts(NamedTuple):
    """The frozen parts of a model on one device, with the UNet in inference form."""

    unet: UNet2DConditionModel
    vae: Autoencoder
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    map_decoder: MapDecoder | None
    """The small decoder of maps, where the folder has one."""


def load_parts(
    folder: Path, adapters: Mapping[str, Path], loras: Sequence[Lora], device: torch.device, dtype: torch.dtype,
    vae: Path | None = None,
) -> Parts:  # fmt: skip
    """Check and load a model, fuse the LoRAs into its base, add the adapters and merge them.

    Args:
        folder: The model folder.
        adapters: Name -> adapter.
        loras: LoRAs to fuse into the base.
        device: Device of all parts.
        dtype: Data type of all parts.
        vae: The folder of the autoencoder, by default the model's own.

    Raises:
        FileNotFoundError: A part is absent.
        ValueError: A part is something else or does not fit. It is raised before weights are read if headers show it.
    """
    layers = check_fit(folder, adapters, loras, vae)
    decoder = map_decoder_folder(folder)
    unet = load_part(folder, "unet", device, dtype)
    text_encoder = load_part(folder, "text_encoder", device, dtype)
    for lora, changed in zip(loras, layers, strict=True):
        fuse_lora({"unet": unet, "text_encoder": text_encoder}, lora, changed)
    for name, path in adapters.items():
        (load_official if is_official(path) else load_adapter)(unet, path, name=name)
    return Parts(
        unet=merge_in_place(unet),
        vae=load_module(vae or folder / "vae", "vae", device, dtype),
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        map_decoder=None if decoder is None else load_module(decoder, "map_decoder", device, dtype),
    )


def loaded(parts: Parts, loras: Sequence[Lora], dtype: torch.dtype) -> dict[str, Any]:
    """Provenance of loaded parts: adapters, LoRAs and data type."""
    return {
        "adapters": {name: config.to_dict() for name, config in adapter_configs(parts.unet).items()},
        **({"loras": [{"file": lora.path.name, "scale": lora.scale} for lora in loras]} if loras else {}),
        "dtype": str(dtype).removeprefix("torch."),
    }


def check_fit(
    folder: Path, adapters: Mapping[str, Path], loras: Sequence[Lora], vae: Path | None = None
) -> list[list[LoraLayer]]:
    """Check model, adapters and LoRAs by their headers, and return the layers of each LoRA. Raises as `load_parts`."""
    shape: ModelShape = check_model(folder, vae)
    for path in adapters.values():
        check_adapter(path, shape)
    return [lora_layers(lora.path, shape) for lora in loras]


def load_part(folder: Path, part: str, device: str | torch.device, dtype: torch.dtype) -> Any:
    """Load one part of a model folder, see `load_module`."""
    return load_module(folder / part, part, device, dtype)


def load_module(place: Path, part: str, device: str | torch.device, dtype: torch.dtype) -> Any:
    """Load a part of a model from its own folder, frozen and in evaluation mode.

    Args:
        place: The folder with its config.json and weights.
        part: unet, vae, text_encoder or map_decoder.
        device: Where to put it.
        dtype: Data type of its weights.

    Raises:
        ValueError: Its files do not hold exactly its tensors, or values are not finite in this dtype.
    """
    names = [path.name for path in part_files(place, "vae" if part == "map_decoder" else part)]
    options = {"use_safetensors": True, "variant": variant_of(names), "output_loading_info": True}
    if part == "text_encoder":
        module, info = CLIPTextModel.from_pretrained(place, dtype=dtype, **options)
    else:
        module, info = _class_of(place, part).from_pretrained(place, torch_dtype=dtype, **options)
    unexpected = sorted(key for key in info["unexpected_keys"] if current_name(part, key) is not None)
    missing = sorted(info["missing_keys"])
    if missing or unexpected:
        raise ValueError(
            f"A part of a model holds exactly the tensors of its config.json; {place} lacks {len(missing)} "
            f"({', '.join(missing[:3])}) and has {len(unexpected)} others ({', '.join(unexpected[:3])}). "
            "Get the folder again, or take weights and config.json from one model."
        )
    module = module.to(device).eval().requires_grad_(False)
    check_finite(module, f"{place}")
    return module


def _class_of(place: Path, part: str) -> Any:
    if part == "vae":
        return AutoencoderTiny if is_tiny(read_json(place / "config.json")) else AutoencoderKL
    return UNet2DConditionModel if part == "unet" else MapDecoder


def check_finite(module: nn.Module, place: str) -> None:
    """Raise ValueError for weights that are not finite, since their results would be NaN."""
    for name, weight in module.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            kind = str(weight.dtype).removeprefix("torch.")
            raise ValueError(
                f"Weights are finite numbers; {name} of {place} is not, in {kind}. The file is damaged, or its numbers "
                "are too large for that precision: get it again, or give another dtype."
            )


@torch.no_grad()
def fuse_lora(parts: Mapping[str, nn.Module], lora: Lora, layers: Sequence[LoraLayer]) -> None:
    """Add a LoRA to the weights of the base in place: W + scale * alpha / rank * up @ down, computed in float32."""
    with safe_open(str(lora.path), framework="pt") as file:
        for layer in layers:
            weight = cast(Tensor, parts[layer.part].get_submodule(layer.module).weight)
            down, up = (file.get_tensor(key).to(weight.device, torch.float32) for key in (layer.down, layer.up))
            scaling = layer.scaling if layer.alpha is None else float(file.get_tensor(layer.alpha)) / layer.rank
            change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
            weight.copy_(weight.float() + lora.scale * scaling * change)
    for part, module in parts.items():
        if any(layer.part == part for layer in layers):
            check_finite(module, f"{part} with {lora.path}")
