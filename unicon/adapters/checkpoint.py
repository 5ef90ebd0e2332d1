"""Saving and loading an adapter: one safetensors file, with its configuration in the metadata, loaded strictly.

`unicon.files.adapter_header` describes the metadata, `unicon.adapters.unet.named_adapter_parameters` the keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unicon.adapters.config import AdapterConfig, read_config
from unicon.adapters.unet import adapter_config, adapter_shapes, add_adapter, named_adapter_parameters
from unicon.files.adapter_header import FORMAT
from unicon.files.shapes import UNET_SHAPE_KEYS


def unet_shape(unet: UNet2DConditionModel) -> dict:
    """The configuration values of a UNet that adapters depend on, as plain JSON values."""
    return json.loads(json.dumps({key: unet.config.get(key) for key in UNET_SHAPE_KEYS}))


def check_tensors(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise ValueError unless the tensors are exactly the expected ones, by name and shape."""
    missing = sorted(set(shapes) - set(tensors))
    unexpected = sorted(set(tensors) - set(shapes))
    misshaped = [
        f"{key}: {tuple(tensors[key].shape)} instead of {shape}"
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != tuple(shape)
    ]
    if missing or unexpected or misshaped:
        raise ValueError(
            f"An adapter file holds exactly the tensors of its UNet and configuration. {source}: {len(missing)} "
            f"missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}, {len(misshaped)} of another shape "
            f"{misshaped[:3]}. Use the base model and configuration that the adapter was trained with."
        )


def install_adapter(
    unet: UNet2DConditionModel, config: AdapterConfig, tensors: Mapping[str, Tensor], source: str
) -> AdapterConfig:
    """Add an adapter with the given weights to the UNet, in place.

    Raises:
        ValueError: The tensors do not fit or are not finite. The UNet is then unchanged.
    """
    check_tensors(adapter_shapes(unet, config), tensors, source)
    endless = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if endless:
        raise ValueError(f"Weights are finite numbers; {endless[0]} of {source} is not. Get the adapter again.")
    add_adapter(unet, config)
    with torch.no_grad():
        for key, parameter in named_adapter_parameters(unet, config.name).items():
            parameter.copy_(tensors[key])
    return config


def save_adapter(
    unet: UNet2DConditionModel, name: str, path: str | Path, *, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write one adapter of the UNet to a safetensors file.

    Args:
        unet: The UNet that has the adapter.
        name: Name of the adapter.
        path: The file to write.
        tensors: Values that replace those in the UNet, under the same names, such as an exponential moving average.

    Raises:
        ValueError: The adapter is unknown, or the tensors do not fit it.
    """
    parameters = named_adapter_parameters(unet, name)
    values: Mapping[str, Tensor] = parameters if tensors is None else tensors
    check_tensors({key: tuple(value.shape) for key, value in parameters.items()}, values, "tensors given")
    metadata = {
        "format": FORMAT,
        "config": json.dumps(adapter_config(unet, name).to_dict(), sort_keys=True),
        "unet": json.dumps(unet_shape(unet), sort_keys=True),
    }
    contents = {key: value.detach().contiguous().cpu() for key, value in values.items()}
    save_file(contents, str(path), metadata=metadata)


def load_adapter(unet: UNet2DConditionModel, path: str | Path, *, name: str | None = None) -> AdapterConfig:
    """Add the adapter of a file to the UNet, in place, under its own name or `name`.

    Raises:
        ValueError: The file is not a UniCon adapter, was made for a UNet of another shape, or does not hold exactly the
            expected tensors. The UNet is then unchanged.
    """
    config, shape = read_config(path)
    if shape != unet_shape(unet):
        ours = unet_shape(unet)
        differences = {key: (shape.get(key), ours[key]) for key in ours if shape.get(key) != ours[key]}
        raise ValueError(
            f"An adapter fits the UNet shape it was trained on; {path} differs in (its, this UNet's) {differences}. "
            "Load the base model that the adapter names."
        )
    with safe_open(str(path), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no iterator)
    return install_adapter(unet, replace(config, name=name or config.name), tensors, str(path))
