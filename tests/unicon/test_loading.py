# torch declares the children of a module as tensors or modules.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
"""Loading is strict, supports the variants found on hubs, and holds one UNet in memory."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel

from tests.support.tiny import add_random_adapter, tiny_unet
from unicon import UniCon
from unicon.adapters.config import AdapterConfig
from unicon.adapters.merge import merge_adapters, merge_in_place
from unicon.adapters.unet import adapter_configs
from unicon.files.folder import weight_files
from unicon.files.weights import part_files, variant_of, weights_to_load
from unicon.loading import check_finite, load_part
from unicon.pairs import Pair, Pairs

UNET, VAE, TEXT = (
    "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)  # fmt: skip
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
IMAGE = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def with_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As Stable Diffusion 1.5's own folder has them."""
    named = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in tensors.items()}
    return named | {"text_model.embeddings.position_ids": torch.arange(12)[None]}


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    return named | {"text_projection.weight": torch.zeros(24, 24)}


def with_old_attention(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for key, value in tensors.items():
        for new, old in OLD_NAMES.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        named[key] = value
    assert named.keys() != tensors.keys()
    return named


@pytest.mark.parametrize(("file", "change"), [(TEXT, with_prefix), (TEXT, without_prefix), (VAE, with_old_attention)])
def test_harmless_differences_of_names_are_the_same_model(
    file: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    rewrite(folder / file, change)
    ours = UniCon.from_pretrained(folder, device="cpu")
    theirs = UniCon.from_pretrained(tiny_folder, device="cpu")
    assert torch.equal(ours.encode_prompts(["a cat"]), theirs.encode_prompts(["a cat"]))
    found, expected = (model.estimate([IMAGE], num_inference_steps=1)[0] for model in (ours, theirs))
    assert np.array_equal(found, expected)


def test_what_is_missing_after_loading_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    """Of a family whose shapes nobody can tell beforehand."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    rewrite(folder / UNET, lambda tensors: {key: value for key, value in tensors.items() if key != "conv_in.bias"})
    with pytest.raises(ValueError, match=r"lacks 1 \(conv_in.bias\) and has 0 others"):
        load_part(folder, "unet", "cpu", torch.float32)


def test_weights_that_are_not_finite_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    rewrite(folder / VAE, lambda tensors: {**tensors, "decoder.conv_out.bias": torch.full((3,), 1e6)})
    assert load_part(folder, "vae", "cpu", torch.float32).dtype == torch.float32
    with pytest.raises(ValueError, match=r"decoder\.conv_out\.bias of .*vae is not, in float16"):
        load_part(folder, "vae", "cpu", torch.float16)
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, float("nan"))
    with pytest.raises(ValueError, match="weight of it is not, in float32"):
        check_finite(layer, "it")


def save_as(folder: Path, variant: str | None, shard: str) -> None:
    """Write the weights of a folder again, as hubs ship them."""
    parts = {
        "unet": UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        "vae": AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
    }
    for name, part in parts.items():
        for path in (folder / name).glob("*.safetensors"):
            path.unlink()
        half = part.half() if variant == "fp16" else part
        half.save_pretrained(folder / name, variant=variant, max_shard_size=shard)  # type: ignore[call-arg]


@pytest.mark.parametrize(("variant", "shard"), [("fp16", "1GB"), (None, "40KB"), ("fp16", "20KB"), ("non_ema", "1GB")])
def test_variants_and_shards_are_loaded(variant: str | None, shard: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    save_as(folder, variant, shard)
    assert (len(part_files(folder / "unet", "unet")) > 1) == (shard != "1GB")
    model = UniCon.from_pretrained(folder, device="cpu")
    dtype = torch.float16 if variant == "fp16" else torch.float32
    expected = UniCon.from_pretrained(tiny_folder, device="cpu")
    for ours, theirs in ((model.vae, expected.vae), (model.text_encoder, expected.text_encoder)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value.to(dtype).to(value.dtype)), key
    conv_in = expected.unet.conv_in.weight.to(dtype).float()
    assert torch.equal(model.unet.conv_in.weight, conv_in)


def test_a_shard_that_is_absent_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    save_as(folder, None, "40KB")
    part_files(folder / "unet", "unet")[1].unlink()
    with pytest.raises(FileNotFoundError, match="absent: diffusion_pytorch_model-00002"):
        UniCon.from_pretrained(folder, device="cpu")


def test_which_files_are_loaded() -> None:
    stem = "diffusion_pytorch_model"
    plain, half, ema = f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{stem}.non_ema.safetensors"
    assert weights_to_load("unet", [ema, half, plain, f"{stem}.bin", "config.json"]) == [plain]
    assert weights_to_load("unet", [ema, half]) == [half]
    assert weights_to_load("unet", [ema]) == [ema]
    assert weights_to_load("vae", [f"{stem}.bin"]) == []
    shards = [f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = f"{plain}.index.json"
    assert weights_to_load("unet", [index, *shards, plain, half]) == [*shards, index]
    assert weights_to_load("unet", shards) == []
    text = ["model-00001-of-00001.safetensors", "model.safetensors.index.json", "model.safetensors"]
    assert weights_to_load("text_encoder", text) == ["model.safetensors"]  # as transformers decides
    assert [variant_of([name]) for name in (plain, half, shards[0])] == [None, "fp16", None]
    assert variant_of(["model.fp16-00001-of-00002.safetensors"]) == "fp16"
    assert variant_of(["model-00001-of-00002.fp16.safetensors"]) == "fp16"


def test_copies_that_nobody_loads_change_no_hash(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    before = UniCon.from_pretrained(folder, device="cpu").weights_sha256
    shutil.copy(folder / UNET, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    shutil.copy(folder / UNET, folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    (folder / "safety_checker").mkdir()
    shutil.copy(folder / TEXT, folder / "safety_checker" / "model.safetensors")
    assert UniCon.from_pretrained(folder, device="cpu").weights_sha256 == before
    names = [name for name, _ in weight_files(folder, [], unused=True)]
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in names


def test_merging_in_place_is_the_same_and_leaves_no_weights_that_nobody_uses() -> None:
    configs = [
        AdapterConfig(name="depth", rank=4),
        AdapterConfig(name="id", rank=2, projection="separate", condition_adapter=False),
    ]
    unet = tiny_unet()
    for seed, config in enumerate(configs):
        add_random_adapter(unet, config, seed=seed)
    copied = merge_adapters(unet)
    assert list(adapter_configs(unet)) == ["depth", "id"]
    inputs = torch.randn(3, 4, 16, 16), torch.tensor([3, 5, 7]), torch.randn(3, 5, 24)
    pairs = {"pairs": Pairs((Pair(0, 1, "depth"), Pair(0, 2, "id")), 3)}
    base = copy.deepcopy(unet)
    merged = merge_in_place(unet)
    assert merged is unet
    with torch.no_grad():
        for given in (pairs, None):
            ours, theirs = (each(*inputs, cross_attention_kwargs=given).sample for each in (merged, copied))
            assert torch.equal(ours, theirs)
    used = {id(parameter) for parameter in merged.parameters()}
    attention = base.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    assert not [name for name, _ in merged.named_parameters() if ".attn1.to_" in name or "lora" in name]
    assert len(used) < len(list(base.parameters())) and attention.to_q is not None
