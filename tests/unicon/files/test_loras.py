# diffusers declares the arguments of its pipelines too narrowly.
# pyright: reportArgumentType=false
"""LoRAs of other tools, fused into the base: W + scale * alpha / rank * up @ down."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from tests.support.paths import CASES
from unicon import UniCon
from unicon.files.folder import Lora
from unicon.files.inspection import check_model
from unicon.files.loras import find_lora, find_loras, lora_layers
from unicon.loading import fuse_lora, load_part

ADAPTERS = CASES / "adapters"
IMAGE = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
RANK, ALPHA, SCALE = 3, 6.0, 0.7
MODULES = {
    "unet": [
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
        "down_blocks.1.resnets.0.conv1",
        "up_blocks.0.attentions.1.proj_in",
    ],
    "text_encoder": ["encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1"],
}


@dataclass
class Matrices:
    down: Tensor
    up: Tensor


Matrix = dict[tuple[str, str], Matrices]
Parts = dict[str, nn.Module]


def parts_of(folder: Path) -> Parts:
    return {part: load_part(folder, part, "cpu", torch.float32) for part in MODULES}


@pytest.fixture
def parts(tiny_folder: Path) -> Parts:
    return parts_of(tiny_folder)


def matrices(parts: Parts) -> Matrix:
    generator = torch.Generator().manual_seed(3)
    found: Matrix = {}
    for part, modules in MODULES.items():
        for module in modules:
            outputs, inputs, *kernel = parts[part].get_submodule(module).weight.shape  # type: ignore[misc]
            down = torch.randn(RANK, inputs, *kernel, generator=generator) * 0.1  # type: ignore[arg-type]
            up = torch.randn(outputs, RANK, *[1 for _ in kernel], generator=generator) * 0.1  # type: ignore[arg-type]
            found[part, module] = Matrices(down, up)
    return found


def kohya(found: Matrix, folder: Path) -> tuple[Path, float]:
    tensors = {}
    for (part, module), each in found.items():
        prefix = "lora_unet_" if part == "unet" else "lora_te_text_model_"
        name = prefix + module.replace(".", "_")
        tensors |= {f"{name}.lora_down.weight": each.down, f"{name}.lora_up.weight": each.up}
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, folder / "a.safetensors", metadata={"ss_network_dim": "3"})
    return folder / "a.safetensors", ALPHA / RANK


def old_diffusers(found: Matrix, folder: Path) -> tuple[Path, float]:
    """No alpha: it is the rank."""
    tensors = {}
    for (part, module), each in found.items():
        prefix, half = ("unet.", "lora") if part == "unet" else ("text_encoder.text_model.", "lora_linear_layer")
        tensors[f"{prefix}{module}.{half}.down.weight"] = each.down
        tensors[f"{prefix}{module}.{half}.up.weight"] = each.up
    save_file(tensors, folder / "pytorch_lora_weights.safetensors")
    return folder, 1.0


def new_diffusers(found: Matrix, folder: Path) -> tuple[Path, float]:
    """As its pipelines save peft's LoRA: alpha is in the metadata."""
    layers: dict[str, dict[str, Tensor]] = {part: {} for part in MODULES}
    for (part, module), each in found.items():
        layers[part] |= {f"{module}.lora_A.weight": each.down, f"{module}.lora_B.weight": each.up}
    recorded = {part: {"r": RANK, "lora_alpha": ALPHA, "target_modules": MODULES[part]} for part in MODULES}
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=layers["unet"], text_encoder_lora_layers=layers["text_encoder"],
        unet_lora_adapter_metadata=recorded["unet"], text_encoder_lora_adapter_metadata=recorded["text_encoder"],
    )  # fmt: skip
    return folder / "pytorch_lora_weights.safetensors", ALPHA / RANK


FORMATS = [kohya, old_diffusers, new_diffusers]


def expected(base: Parts, found: Matrix, scale: float) -> dict[tuple[str, str], Tensor]:
    """W + scale * up @ down, by convolution where the layer is one."""
    result = {}
    for (part, module), each in found.items():
        weight = base[part].get_submodule(module).weight
        change = torch.einsum("or,r...->o...", each.up.flatten(1), each.down)
        result[part, module] = (weight + scale * change).detach()  # type: ignore[operator]
    return result


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_is_fused_exactly(
    write: Callable[[Matrix, Path], tuple[Path, float]], parts: Parts, tiny_folder: Path, tmp_path: Path
) -> None:
    found = matrices(parts)
    place, scaling = write(found, tmp_path)
    wanted = expected(parts, found, SCALE * scaling)
    untouched = parts["unet"].get_submodule("conv_in").weight.clone()  # type: ignore[operator]
    lora = Lora(find_lora(place), SCALE)
    layers = lora_layers(lora.path, check_model(tiny_folder))
    assert {(layer.part, layer.module) for layer in layers} == set(found)
    fuse_lora(parts, lora, layers)
    for (part, module), weight in wanted.items():
        assert torch.allclose(parts[part].get_submodule(module).weight, weight, atol=1e-7), module  # type: ignore[arg-type]
    assert torch.equal(parts["unet"].get_submodule("conv_in").weight, untouched)  # type: ignore[arg-type]


@pytest.mark.parametrize("write", FORMATS)
def test_diffusers_fuses_the_same(
    write: Callable[[Matrix, Path], tuple[Path, float]], parts: Parts, tiny_folder: Path, tmp_path: Path
) -> None:
    found = {key: each for key, each in matrices(parts).items() if key[0] == "unet"}
    place, _ = write(found, tmp_path)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(tiny_folder / "vae"),
        unet=UNet2DConditionModel.from_pretrained(tiny_folder / "unet"),
        text_encoder=CLIPTextModel.from_pretrained(tiny_folder / "text_encoder"), safety_checker=None,
        tokenizer=CLIPTokenizer.from_pretrained(tiny_folder / "tokenizer"), feature_extractor=None,
        scheduler=DDIMScheduler.from_pretrained(tiny_folder / "scheduler"), requires_safety_checker=False,
    )  # type: ignore[arg-type] # fmt: skip
    file = find_lora(place)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    pipeline.fuse_lora(components=["unet"], lora_scale=SCALE)
    pipeline.unload_lora_weights()
    fuse_lora(parts, Lora(file, SCALE), lora_layers(file, check_model(tiny_folder)))
    ours, theirs = parts["unet"].state_dict(), pipeline.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) < 1e-6


@pytest.mark.parametrize("rank_stabilized", [False, True])
def test_peft(rank_stabilized: bool, parts: Parts, tiny_folder: Path, tmp_path: Path) -> None:
    """A folder that peft itself writes, with its alpha in adapter_config.json."""
    config = LoraConfig(
        r=RANK, lora_alpha=5, target_modules=["to_q", "to_v"], init_lora_weights=False, use_rslora=rank_stabilized,
        alpha_pattern={"to_v": 8},
    )  # fmt: skip
    model = get_peft_model(UNet2DConditionModel.from_pretrained(tiny_folder / "unet"), config)
    model.save_pretrained(tmp_path / "peft")
    file = find_lora(tmp_path / "peft")
    fuse_lora(parts, Lora(file, 1.0), lora_layers(file, check_model(tiny_folder)))
    merged = model.merge_and_unload().state_dict()
    assert all(torch.allclose(merged[key], value, atol=1e-6) for key, value in parts["unet"].state_dict().items())
    base = UNet2DConditionModel.from_pretrained(tiny_folder / "unet").state_dict()
    changed = {key for key, value in parts["unet"].state_dict().items() if not torch.equal(base[key], value)}
    assert changed and all(".to_q." in key or ".to_v." in key for key in changed)


def test_a_model_with_loras(parts: Parts, tiny_folder: Path, tmp_path: Path) -> None:
    file, _ = kohya(matrices(parts), tmp_path)
    plain = UniCon.from_pretrained(tiny_folder, device="cpu")
    estimates, hashes = [plain.estimate([IMAGE], num_inference_steps=1)[0]], {plain.weights_sha256}
    for loras in ([file], {str(file): 0.5}, [(file, 0.5), (file, 0.5)]):
        model = UniCon.from_pretrained(tiny_folder, loras=loras, device="cpu")  # type: ignore[arg-type]
        estimates.append(model.estimate([IMAGE], num_inference_steps=1)[0])
        hashes.add(model.weights_sha256)
    assert len(hashes) == 4
    assert not np.allclose(estimates[0], estimates[1], atol=1e-3)
    assert not np.allclose(estimates[1], estimates[2], atol=1e-3)
    assert np.allclose(estimates[1], estimates[3], atol=1e-4)
    assert "loras" not in plain.describe()
    nothing = UniCon.from_pretrained(tiny_folder, loras={str(file): 0}, device="cpu")
    assert np.array_equal(nothing.estimate([IMAGE], num_inference_steps=1)[0], estimates[0])
    assert nothing.describe()["loras"] == [{"file": "a.safetensors", "scale": 0.0}]


BROKEN: dict[str, tuple[dict[str, Tensor], str]] = {
    "another base": ({"unet.up_blocks.7.attentions.0.to_q.lora.down.weight": torch.zeros(3, 16)}, "match no layer"),
    "sdxl": ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(3, 24)}, "match no layer"),
    "another size": (
        {f"unet.{MODULES['unet'][0]}.lora.{half}.weight": torch.zeros(3, 320) if half == "down" else torch.zeros(320, 3)
         for half in ("down", "up")}, r"the layer has \(16, 16\)",
    ),
    "half of it": ({f"unet.{MODULES['unet'][0]}.lora.down.weight": torch.zeros(3, 16)}, "incomplete"),
    "dora": ({f"lora_unet_{MODULES['unet'][0].replace('.', '_')}.dora_scale": torch.zeros(16, 1)}, "DoRA"),
    "lokr": ({f"lora_unet_{MODULES['unet'][0].replace('.', '_')}.lokr_w1": torch.zeros(4, 4)}, "LyCORIS"),
    "inversion": ({"emb_params": torch.zeros(1, 768)}, "textual inversion"),
    "unknown": ({"weight": torch.zeros(1)}, "holds none"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_lora_of_this_model_is_refused(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    tensors, message = BROKEN[name]
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        UniCon.from_pretrained(tiny_folder, loras=[tmp_path / "a.safetensors"], device="cpu")


def test_other_files_and_places_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    shape = check_model(tiny_folder)
    for path, message in (
        (tiny_folder / "adapters" / "depth.safetensors", "is a UniCon adapter. Give it with --adapter"),
        (ADAPTERS / "lfs.safetensors", "Git LFS pointer"),
        (ADAPTERS / "lcm" / "pytorch_lora_weights.safetensors", r"matrices|incomplete|match no layer"),
    ):
        with pytest.raises(ValueError, match=message):
            lora_layers(path, shape)
    with pytest.raises(FileNotFoundError, match="nothing at './absent'"):
        find_lora("./absent")
    with pytest.raises(FileNotFoundError, match="neither pytorch_lora"):
        find_lora(tmp_path)
    with pytest.raises(ValueError, match="finite"):
        find_loras({str(ADAPTERS / "kohya.safetensors"): float("nan")})


def test_one_file_in_a_folder_is_found(tmp_path: Path) -> None:
    shutil.copy(ADAPTERS / "kohya.safetensors", tmp_path / "mine.safetensors")
    assert find_lora(tmp_path) == tmp_path / "mine.safetensors"
    shutil.copy(ADAPTERS / "kohya.safetensors", tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="mine.safetensors, other.safetensors. Name one"):
        find_lora(tmp_path)
    shutil.copy(ADAPTERS / "lcm" / "pytorch_lora_weights.safetensors", tmp_path)
    assert find_lora(tmp_path).name == "pytorch_lora_weights.safetensors"


NAME = f"unet.{MODULES['unet'][0]}.lora_{{}}.weight"


@pytest.mark.parametrize("recorded", ["{x", "[]", '{"unet.lora_alpha": "x"}', '{"unet.alpha_pattern": {"(": 3}}'])
def test_what_is_recorded_of_a_lora_and_cannot_be_read(recorded: str, tiny_folder: Path, tmp_path: Path) -> None:
    halves = {NAME.format("A"): torch.ones(3, 16), NAME.format("B"): torch.ones(16, 3)}
    save_file(halves, tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": recorded})
    with pytest.raises(ValueError, match="records of its LoRA .*cannot be read"):
        lora_layers(tmp_path / "a.safetensors", check_model(tiny_folder))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({NAME.format("A"): torch.ones(0, 16), NAME.format("B"): torch.ones(16, 0)}, "fits the base"),
        ({NAME.format("A"): torch.tensor(1.0), NAME.format("B"): torch.ones(16, 3)}, "fits the base"),
        ({NAME.format("A"): torch.full((3, 16), torch.nan), NAME.format("B"): torch.ones(16, 3)}, "finite"),
        ({NAME.format("A"): torch.ones(3, 16).to(torch.int8), NAME.format("B"): torch.ones(16, 3)}, "floating-point"),
    ],
)
def test_matrices_of_no_use(tensors: dict[str, Tensor], message: str, tiny_folder: Path, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        lora_layers(tmp_path / "a.safetensors", check_model(tiny_folder))
