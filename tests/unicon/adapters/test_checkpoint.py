from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tests.support.paths import GOLDEN
from tests.support.tiny import add_random_adapter, tiny_unet
from unicon.adapters.checkpoint import load_adapter, save_adapter, unet_shape
from unicon.adapters.config import AdapterConfig, read_config
from unicon.adapters.official import (
    load_official,
    official_folder_key,
    official_parameter_key,
    read_official,
    save_official,
    unet_without_weights,
)
from unicon.adapters.unet import adapter_configs, add_adapter, named_adapter_parameters
from unicon.files.adapter_header import FORMAT
from unicon.files.adapters import LORA_FILE, find_adapter
from unicon.files.official import our_key

CONFIGS = [
    AdapterConfig(name="depth", rank=4),
    AdapterConfig(name="id", rank=2, alpha=3, projection="separate", condition_adapter=False),
]


def unet_with(config: AdapterConfig) -> UNet2DConditionModel:
    unet = tiny_unet()
    add_random_adapter(unet, config)
    return unet


def assert_same(first: UNet2DConditionModel, second: UNet2DConditionModel, name: str, other: str = "") -> None:
    ours, theirs = named_adapter_parameters(first, name), named_adapter_parameters(second, other or name)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_round_trip(config: AdapterConfig, tmp_path: Path) -> None:
    unet, other = unet_with(config), tiny_unet()
    save_adapter(unet, config.name, tmp_path / "a.safetensors")
    assert load_adapter(other, tmp_path / "a.safetensors") == config
    assert adapter_configs(other) == {config.name: config}
    assert_same(unet, other, config.name)
    load_adapter(other, tmp_path / "a.safetensors", name="again")
    assert_same(unet, other, config.name, "again")


def test_other_tensors_can_be_saved(tmp_path: Path) -> None:
    unet, other = unet_with(CONFIGS[0]), tiny_unet()
    averages = {key: torch.zeros_like(value) for key, value in named_adapter_parameters(unet, "depth").items()}
    save_adapter(unet, "depth", tmp_path / "a.safetensors", tensors=averages)
    load_adapter(other, tmp_path / "a.safetensors")
    assert all(value.count_nonzero() == 0 for value in named_adapter_parameters(other, "depth").values())


@pytest.mark.parametrize("damage", ["missing", "unexpected", "of another shape"])
def test_loading_is_strict(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_adapter(unet_with(CONFIGS[0]), "depth", path)
    tensors = load_file(path)
    key = next(iter(tensors))
    if damage == "missing":
        del tensors[key]
    elif damage == "unexpected":
        tensors["surprise"] = torch.zeros(1)
    else:
        tensors[key] = tensors[key][:1]
    _, shape = read_config(path)
    metadata = {"format": FORMAT, "config": '{"name": "depth", "rank": 4}', "unet": json.dumps(shape)}
    save_file(tensors, path, metadata=metadata)
    unet = tiny_unet()
    with pytest.raises(ValueError, match=f"1 {damage}"):
        load_adapter(unet, path)
    assert adapter_configs(unet) == {}


def test_another_unet_shape_is_refused(tmp_path: Path) -> None:
    save_adapter(unet_with(CONFIGS[0]), "depth", tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="use_linear_projection"):
        load_adapter(tiny_unet(use_linear_projection=False), tmp_path / "a.safetensors")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="unicon-adapter-1"):
        load_adapter(tiny_unet(), tmp_path / "a.safetensors")


def test_an_adapter_of_a_later_version_or_of_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_adapter(unet_with(CONFIGS[0]), "depth", path)
    tensors, (_, shape) = load_file(path), read_config(path)
    metadata = {"format": FORMAT, "config": '{"name": "depth", "rank": 4}', "unet": json.dumps(shape)}
    save_file({key: value * float("nan") for key, value in tensors.items()}, path, metadata=metadata)
    with pytest.raises(ValueError, match="Weights are finite numbers"):
        load_adapter(tiny_unet(), path)
    save_file(tensors, path, metadata={**metadata, "config": '{"name": "depth", "later": 1}'})
    with pytest.raises(ValueError, match="of another version .*later"):
        load_adapter(tiny_unet(), path)


@pytest.mark.parametrize("name", ["depth", "id"])
def test_official_keys_map_both_ways(name: str) -> None:
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "unet")
    load_official(unet, GOLDEN / "checkpoints" / name, name=name)
    pickled = torch.load(GOLDEN / "checkpoints" / name / "model.pth", weights_only=True)
    ours = set(named_adapter_parameters(unet, name))
    assert {official_parameter_key(key) for key in ours} == set(pickled)
    for folder in {"xy_lora", "yx_lora", *(["y_lora"] if name == "depth" else [])}:
        for key in load_file(GOLDEN / "checkpoints" / name / folder / LORA_FILE):
            assert our_key(folder, key) in ours
            assert official_folder_key(our_key(folder, key)) == (folder, key)


@pytest.mark.parametrize("name", ["depth", "id"])
def test_export_to_the_official_layout_gives_the_official_file(name: str, tmp_path: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "unet")
    config = load_official(unet, GOLDEN / "checkpoints" / name, name=name)
    assert (config.projection, config.condition_adapter) == (
        ("fused", True) if name == "depth" else ("separate", False)
    )
    save_official(unet, name, tmp_path / name)
    for path in (GOLDEN / "checkpoints" / name).rglob("*.*"):
        copy = tmp_path / name / path.relative_to(GOLDEN / "checkpoints" / name)
        golden, ours = (
            load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
            for file in (path, copy)
        )
        assert set(golden) == set(ours)
        assert all(torch.equal(golden[key], ours[key]) for key in golden)


def test_a_conversion_needs_no_weights_of_the_base(tmp_path: Path) -> None:
    config, tensors = read_official(GOLDEN / "checkpoints" / "depth", "depth")
    unet = unet_without_weights(GOLDEN)
    assert next(unet.parameters()).device.type == "meta"
    add_adapter(unet, config)
    save_official(unet, "depth", tmp_path / "depth", tensors=tensors)
    again, copies = read_official(tmp_path / "depth", "depth")
    assert again == config
    assert set(copies) == set(tensors)
    assert all(torch.equal(copies[key], tensors[key]) for key in tensors)
    save_adapter(unet, "depth", tmp_path / "depth.safetensors", tensors=tensors)
    with_weights = UNet2DConditionModel.from_pretrained(GOLDEN / "unet")
    assert load_adapter(with_weights, tmp_path / "depth.safetensors") == config


def test_the_shape_of_stable_diffusion_1_is_known() -> None:
    shape = unet_shape(unet_without_weights())
    assert (shape["cross_attention_dim"], shape["use_linear_projection"]) == (768, False)
    assert shape["block_out_channels"] == [320, 640, 1280, 1280]
    assert unet_shape(unet_without_weights(shape)) == shape


def test_an_adapter_in_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied("depth", tmp_path / "depth")
    asked: list[tuple[str, list[str]]] = []

    def fetch(repository: str, *, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr("unicon.files.hub.snapshot_download", fetch)
    assert find_adapter("owner/name/depth") == tmp_path / "depth"
    assert asked[0][0] == "owner/name"
    assert "depth/model.pth" in asked[0][1]
    with pytest.raises(FileNotFoundError, match="'depth'"):
        find_adapter("owner/name")


def copied(name: str, folder: Path) -> Path:
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "unet")
    load_official(unet, GOLDEN / "checkpoints" / name, name=name)
    save_official(unet, name, folder)
    return folder


def test_damaged_official_folders_are_refused(tmp_path: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(GOLDEN / "unet")
    folder = copied("depth", tmp_path / "depth")
    pickled = torch.load(folder / "model.pth", weights_only=True)

    torch.save({**pickled, next(iter(pickled)): torch.zeros(4, 32)}, folder / "model.pth")
    with pytest.raises(ValueError, match="differs from its folder"):
        load_official(unet, folder, name="depth")
    torch.save({**pickled, "mystery": torch.zeros(1)}, folder / "model.pth")
    with pytest.raises(ValueError, match="mystery"):
        load_official(unet, folder, name="depth")
    torch.save({key: value for key, value in pickled.items() if "conv1n" not in key}, folder / "model.pth")
    with pytest.raises(ValueError, match="has none"):
        load_official(unet, folder, name="depth")
    one_projection = next(key for key in pickled if "conv1n" in key)
    torch.save({key: value for key, value in pickled.items() if key != one_projection}, folder / "model.pth")
    with pytest.raises(ValueError, match="1 missing"):
        load_official(unet, folder, name="depth")
    (folder / "xy_lora" / LORA_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="xy_lora"):
        load_official(unet, folder, name="depth")
    assert adapter_configs(unet) == {}


def test_an_official_adapter_needs_its_unet() -> None:
    with pytest.raises(ValueError, match="missing|another shape"):
        load_official(tiny_unet(), GOLDEN / "checkpoints" / "depth", name="depth")


def test_export_refuses_another_alpha(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="alpha is the rank"):
        save_official(unet_with(CONFIGS[1]), "id", tmp_path)
