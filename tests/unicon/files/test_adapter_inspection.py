"""Adapters that cannot be loaded are refused before weights are read, with the same message in commands and library."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipelines.errors import SettingError
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_identity import resolve_model
from pipelines.tasks.model_options import parse_adapters
from tests.support.inputs import write_folder
from tests.support.model_folders import ADAPTERS, CHECKPOINTS, POINTER, Change, cut, remove, tensors, write
from tests.support.tiny import add_random_adapter, tiny_unet
from unicon import UniCon
from unicon.adapters.checkpoint import save_adapter
from unicon.adapters.config import AdapterConfig
from unicon.adapters.official import save_official
from unicon.files.adapter_header import CONFIG_VALUES

LORA = {"lora_unet_down_blocks_0_attn1_to_q.lora_down.weight": (4, 16)}
FILES: dict[str, tuple[dict[str, tuple[int, ...]], list[str]]] = {
    "kohya": (LORA, ["LoRA (kohya)", "--lora"]),
    "peft": ({"base_model.model.down_blocks.0.attn1.to_q.lora_A.weight": (4, 16)}, ["LoRA (peft)", "--lora"]),
    "diffusers": ({"unet.down_blocks.0.attn1.to_q.lora.down.weight": (4, 16)}, ["LoRA (diffusers)", "--lora"]),
    "lokr": ({"lora_unet_down_blocks_0_attn1_to_q.lokr_w1": (4, 4)}, ["LyCORIS"]),
    "part": ({"unet.down_blocks.0.attn1n.to_q.lora.down.weight": (4, 16)},
        ["part of an official adapter", "Give the folder"]),
    "controlnet": ({"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3), "conv_in.weight": (1,)}, ["ControlNet"]),
    "old-controlnet": ({"control_model.zero_convs.0.0.weight": (1,)}, ["ControlNet"]),
    "ip-adapter": ({"image_proj.proj.weight": (4, 4)}, ["IP-Adapter"]),
    "t2i-adapter": ({"adapter.body.0.in_conv.weight": (4, 4)}, ["T2I-Adapter"]),
    "inversion": ({"emb_params": (1, 768)}, ["textual inversion"]),
    "sd-inversion": ({"<cat>": (768,)}, ["textual inversion"]),
    "checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}, ["whole checkpoint", "--model"]),
    "unet": ({"down_blocks.0.resnets.0.conv1.weight": (4, 4)}, ["is a UNet", "--model"]),
    "vae": ({"decoder.conv_in.weight": (4, 4)}, ["autoencoder"]),
    "unknown": ({"weight": (1,), "bias": (1,)}, ["none of them"]),
}  # fmt: skip


def refused(folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("unicon.loading.load_part", None)
    with pytest.raises((ValueError, FileNotFoundError)) as library:
        UniCon.from_pretrained(folder, adapters={"depth": adapter}, device="cpu")
    given = parse_adapters([str(adapter)], ["depth"])
    with pytest.raises(SettingError) as command:
        resolve_model(UniConModel(model=str(folder), conditions=("depth",), adapters=given))
    assert str(command.value) == f"--adapter: {library.value}"
    return str(library.value)


@pytest.mark.parametrize("name", FILES)
def test_other_files_as_adapter(name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes, words = FILES[name]
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "a.safetensors")
    message = refused(tiny_folder, tmp_path / "a.safetensors", monkeypatch)
    assert all(word in message for word in [*words, "official adapter folder"]), message


def official(tmp_path: Path, name: str = "depth") -> Path:
    unet = tiny_unet()
    add_random_adapter(unet, AdapterConfig(name=name, rank=4))
    save_official(unet, name, tmp_path / "repository" / name)
    return tmp_path / "repository"


def damaged(change: Change) -> Callable[[Path, Path], Path]:
    def make(tmp_path: Path, tiny_folder: Path) -> Path:
        root = official(tmp_path)
        change(root / "depth")
        return root / "depth"

    return make


def adapter_of_another_base(tmp_path: Path, tiny_folder: Path) -> Path:
    unet = tiny_unet(use_linear_projection=False)
    add_random_adapter(unet, AdapterConfig(name="depth", rank=4))
    save_adapter(unet, "depth", tmp_path / "other.safetensors")
    return tmp_path / "other.safetensors"


def incomplete_adapter(tmp_path: Path, tiny_folder: Path) -> Path:
    path = tiny_folder / "adapters" / "depth.safetensors"
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    save_file(dict(list(load_file(path).items())[1:]), tmp_path / "a.safetensors", metadata=metadata)
    return tmp_path / "a.safetensors"


def cut_adapter(tmp_path: Path, tiny_folder: Path) -> Path:
    (tmp_path / "a.safetensors").write_bytes((tiny_folder / "adapters" / "depth.safetensors").read_bytes()[:20_000])
    return tmp_path / "a.safetensors"


def with_metadata(**values: Any) -> Callable[[Path, Path], Path]:
    """An adapter with other values in its configuration; CONFIG=text replaces all of it."""

    def make(tmp_path: Path, tiny_folder: Path) -> Path:
        path = tiny_folder / "adapters" / "depth.safetensors"
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata()
        metadata["config"] = values.pop("CONFIG", None) or json.dumps(json.loads(metadata["config"]) | values)
        save_file(load_file(path), tmp_path / "a.safetensors", metadata=metadata)
        return tmp_path / "a.safetensors"

    return make


def endless_adapter(kind: torch.dtype) -> Callable[[Path, Path], Path]:
    def make(tmp_path: Path, tiny_folder: Path) -> Path:
        path = tiny_folder / "adapters" / "depth.safetensors"
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata()
        tensors = {key: value.to(kind) for key, value in load_file(path).items()}
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, tmp_path / "a.safetensors", metadata=metadata)
        return tmp_path / "a.safetensors"

    return make


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/nobody/should/run/this",)


def evil(folder: Path) -> None:
    torch.save({"a.conv1n.weight": Evil()}, folder / "model.pth")


def other_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "model.pth", "w") as archive:
        archive.writestr("a.txt", "x")


def no_projections(folder: Path) -> None:
    entries = torch.load(folder / "model.pth")
    torch.save({key: value for key, value in entries.items() if "conv1n" not in key}, folder / "model.pth")


def of_a_wrapper(folder: Path) -> None:
    entries = torch.load(folder / "model.pth")
    torch.save({f"module.{key}": value for key, value in entries.items()}, folder / "model.pth")


LORA_PATH = "xy_lora/pytorch_lora_weights.safetensors"
UNFIT_ADAPTERS: dict[str, tuple[Callable[[Path, Path], Path], list[str]]] = {
    "kohya-case": (lambda tmp, tiny: ADAPTERS / "kohya.safetensors", ["LoRA (kohya)", "--lora"]),
    "lcm-case": (lambda tmp, tiny: ADAPTERS / "lcm", ["folder of a LoRA", "--lora"]),
    "pointer-case": (lambda tmp, tiny: ADAPTERS / "lfs.safetensors", ["Git LFS pointer"]),
    "cut": (cut_adapter, ["cut short: it has 20,000 bytes"]),
    "incomplete": (incomplete_adapter, ["1 missing"]),
    "another-base": (adapter_of_another_base, ["use_linear_projection", "--model"]),
    "official-for-another-base": (lambda tmp, tiny: CHECKPOINTS / "depth", ["do not fit this model"]),
    "repository": (lambda tmp, tiny: official(tmp, "edge"), ["['edge'] in it have", "'depth'"]),
    "one-lora-of-it": (lambda tmp, tiny: official(tmp) / "depth" / LORA_PATH,
        ["part of an official", "repository/depth."]),
    "folder-of-one-lora": (lambda tmp, tiny: (official(tmp) / "depth" / LORA_PATH).parent,
        ["part of one", "repository/depth"]),
    "its-pickle": (lambda tmp, tiny: official(tmp) / "depth" / "model.pth", ["Give its folder", "repository/depth"]),
    "pickle-pointer": (damaged(write("model.pth", POINTER)), ["model.pth is a Git LFS pointer"]),
    "pickle-cut": (damaged(cut("model.pth")), ["model.pth is cut short"]),
    "lora-cut": (damaged(write(LORA_PATH, b"")), ["is empty"]),
    "lora-absent": (damaged(remove("yx_lora")), ["yx_lora", "complete"]),
    "endless": (endless_adapter(torch.float32), ["finite numbers", "Get the file again"]),
    "endless-half": (endless_adapter(torch.float16), ["finite numbers"]),
    "endless-bfloat16": (endless_adapter(torch.bfloat16), ["finite numbers"]),
    "no-config": (with_metadata(CONFIG="{x"), ["no config there that can be read"]),
    "list-as-config": (with_metadata(CONFIG="[]"), ["no config there that can be read"]),
    "text-rank": (with_metadata(rank="x"), ["of another version (rank 'x')"]),
    "endless-alpha": (with_metadata(alpha=float("nan")), ["of another version (alpha"]),
    "later": (with_metadata(later=1), ["of another version (later '1')", "Update this package"]),
    "three-views": (with_metadata(estimation_views=3), ["estimation_views"]),
    "pickle-that-runs": (damaged(evil), ["would call posix.mkdir", "Nothing of it was run"]),
    "pickle-is-another-zip": (damaged(other_zip), ["zip archive of something else"]),
    "no-projections": (damaged(no_projections), ["has none"]),
    "projections-of-a-wrapper": (damaged(of_a_wrapper), ["do not fit this model"]),
    "other-lora-keys": (damaged(tensors(LORA_PATH, lambda key: key.replace("attn1n", "attn1"))), ["no UniCon adapter"]),
    "half-of-a-lora": (damaged(tensors(LORA_PATH, lambda key: key if "to_q" in key else None)), ["instead of"]),
    "long-name": (lambda tmp, tiny: Path("/" + "x" * 5000), ["nothing at"]),
    "empty-folder": (lambda tmp, tiny: tmp, ["holds no model.pth"]),
    "controlnet-folder": (
        lambda tmp, tiny: write_folder(tmp / "c", {"config.json": b'{"_class_name": "ControlNetModel"}'}),
        ["is a ControlNetModel"],
    ),
    "model": (lambda tmp, tiny: tiny, ["is a model", "--model"]),
    "folder-of-adapters": (lambda tmp, tiny: tiny / "adapters", ["holds depth.safetensors", "Name the very file"]),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT_ADAPTERS)
def test_adapters(name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, words = UNFIT_ADAPTERS[name]
    message = refused(tiny_folder, make(tmp_path, tiny_folder), monkeypatch)
    assert all(word in message for word in words), message


def test_a_local_repository_gives_the_folder_of_the_condition(tiny_folder: Path, tmp_path: Path) -> None:
    root = official(tmp_path)
    add = tiny_unet()
    add_random_adapter(add, AdapterConfig(name="edge", rank=4), seed=7)
    save_official(add, "edge", root / "edge")
    whole = UniConModel(model=str(tiny_folder), conditions=("edge",), adapters={"edge": str(root)})
    folder = UniConModel(model=str(tiny_folder), conditions=("edge",), adapters={"edge": str(root / "edge")})
    assert resolve_model(whole)[1].weights_sha256 == resolve_model(folder)[1].weights_sha256
    assert list(UniCon.from_pretrained(tiny_folder, adapters={"edge": root}, device="cpu").adapters) == ["edge"]


def test_the_header_knows_every_field_of_the_configuration() -> None:
    assert set(CONFIG_VALUES) == {field.name for field in fields(AdapterConfig)}


def test_a_half_precision_copy_of_official_loras_is_the_same_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    folder = official(tmp_path) / "depth"
    for path in folder.rglob("*.safetensors"):
        save_file({key: value.half() for key, value in load_file(path).items()}, path)
    assert UniCon.from_pretrained(tiny_folder, adapters={"depth": folder}, device="cpu").adapters["depth"].rank == 4
