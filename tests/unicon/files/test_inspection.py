"""Models that cannot be loaded are refused by their headers, with the rule, what came, and the cure."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from pipelines.errors import SettingError
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_identity import resolve_model
from tests.support.ldm import write_checkpoint
from tests.support.model_folders import (
    POINTER,
    TEXT,
    UNET,
    VAE,
    Change,
    config,
    copied,
    cut,
    dtype,
    remove,
    renamed,
    tensors,
    write,
)
from unicon import UniCon
from unicon.files.inspection import check_model
from unicon.files.model_config import model_config
from unicon.limits import ModelLimits
from unicon.options import SamplingOptions


def diffusion_transformer(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    (folder / "transformer").mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')


def moved(file: str, *others: str) -> Change:
    """Other files in the place of one."""

    def change(folder: Path) -> None:
        (folder / file).unlink()
        for other in others:
            (folder / other).write_bytes(b"x")

    return change


def kandinsky(folder: Path) -> None:
    remove("vae", "text_encoder")(folder)
    (folder / "model_index.json").write_text('{"_class_name": "KandinskyV22Pipeline"}')


def dead_link(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / UNET).symlink_to("/no/such/file")


def utf16(folder: Path) -> None:
    path = folder / "vae" / "config.json"
    path.write_bytes(path.read_text().encode("utf-16"))


def add_token(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.add_tokens(["<cat>"])
    tokenizer.save_pretrained(folder / "tokenizer")


MODELS: dict[str, tuple[Change, list[str]]] = {
    "sdxl": (config("unet", addition_embed_type="text_time"), ["Stable Diffusion XL", "1.x or 2.x"]),
    "flux": (diffusion_transformer, ["diffusion transformer (FluxPipeline)", "1.x or 2.x"]),
    "inpainting": (config("unet", in_channels=9), ["an inpainting UNet", "9 input", "text-to-image"]),
    "pix2pix": (config("unet", in_channels=8), ["InstructPix2Pix"]),
    "depth2img": (config("unet", in_channels=5), ["takes depth maps"]),
    "another-vae": (config("unet", in_channels=16), ["another autoencoder"]),
    "unclip": (config("unet", class_embed_type="projection"), ["needs more than a text (class_embed_type projection)"]),
    "no-widths": (config("vae", block_out_channels=None), ["vae/config.json", "block_out_channels"]),
    "strange-value": (config("unet", in_channels="many"), ["model"]),
    "strange-type": (config("unet", down_block_types=7), ["value of another kind"]),
    "no-vocabulary": (write("tokenizer/tokenizer.json", b"{}"), ["value of another kind (KeyError"]),
    "3d-unet": (config("unet", _class_name="UNet3DConditionModel"), ["UNet3DConditionModel"]),
    "no-unet": (remove("unet"), ["has no unet/config.json", "diffusers layout"]),
    "no-vae": (remove("vae"), ["vae/config.json", "diffusers layout"]),
    "no-weights": (remove(UNET), ["unet has no weights", "diffusion_pytorch_model.safetensors"]),
    "bin-weights": (renamed(TEXT, "text_encoder/pytorch_model.bin"),
        ["pytorch_model.bin alone", "use_safetensors=False"]),
    "pointer": (write(UNET, POINTER), ["Git LFS pointer", "git lfs pull"]),
    "pointer-config": (write("vae/config.json", POINTER), ["Git LFS pointer"]),
    "html": (write(VAE, b"<!DOCTYPE html><html>"), ["web page", "Download the file"]),
    "empty": (write(VAE, b""), ["is empty"]),
    "cut": (cut(UNET), ["cut short", "bytes"]),
    "pickle": (write(TEXT, b"PK\x03\x04" + bytes(99)), ["PyTorch pickle"]),
    "noise": (write(TEXT, bytes(range(256))), ["no safetensors file"]),
    "incomplete": (tensors(UNET, lambda key: None if key == "conv_in.bias" else key), ["1 missing (conv_in.bias)"]),
    "surplus": (tensors(VAE, lambda key: f"{key}x" if key == "decoder.conv_out.bias" else key),
                ["1 missing (decoder.conv_out.bias)", "1 unexpected (decoder.conv_out.biasx)"]),
    "ldm": (tensors(UNET, lambda key: f"model.diffusion_model.{key}"), ["original code", "from_single_file"]),
    "other-text-names": (tensors(TEXT, lambda key: f"clip.{key}"), ["missing (embeddings.", "unexpected (clip."]),
    "text-of-another-shape": (config("text_encoder", num_hidden_layers=3), ["missing (encoder.layers.2"]),
    "unet-of-another-shape": (config("unet", layers_per_block=2), ["missing (down_blocks"]),
    "widths": (config("text_encoder", hidden_size=32), ["takes 24", "gives 32"]),
    "t5": (config("text_encoder", model_type="t5"), ["CLIP", "t5"]),
    "no-sample-size": (config("unet", sample_size=None), ["sample_size"]),
    "no-tokenizer": (remove("tokenizer"), ["tokenizer", "Copy the folder"]),
    "endless-tokenizer": (config("tokenizer", model_max_length=None),
        ["model_max_length None", '"model_max_length": 12']),
    "long-tokenizer": (config("tokenizer", model_max_length=77), ["model_max_length 77"]),
    "other-tokenizer": (config("text_encoder", vocab_size=50), ["one vocabulary"]),
    "no-scheduler": (remove("scheduler"), ["noise schedule", "scheduler_config.json"]),
    "flow-matching": (config("scheduler", _class_name="FlowMatchEulerDiscreteScheduler"), ["flow matching"]),
    "flow-prediction": (config("scheduler", prediction_type="flow_prediction"), ["flow matching"]),
    "strange-prediction": (config("scheduler", prediction_type="x0"), ["prediction_type", "'x0'"]),
    "other-scheduler": (config("scheduler", _class_name="EDMEulerScheduler"), ["EDMEulerScheduler", "1.x or 2.x"]),
    "no-betas": (write("scheduler/scheduler_config.json", b"{}"), ["beta_schedule", "says None"]),
    "endless-beta": (config("scheduler", beta_start=float("nan")), ["beta_start and beta_end", "nan"]),
    "text-beta": (config("scheduler", beta_end="x"), ["beta_start and beta_end", "'x'"]),
    "few-betas": (config("scheduler", trained_betas=[0.1] * 10), ["trained_betas is 1000 numbers"]),
    "text-timesteps": (config("scheduler", num_train_timesteps="1000"), ["num_train_timesteps", "'1000'"]),
    "text-size": (config("unet", sample_size=["a"]), ["sample_size in whole numbers"]),
    "negative-size": (config("unet", sample_size=-16), ["sample_size in whole numbers"]),
    "groups": (config("unet", norm_num_groups=7), ["norm_num_groups divides", "says 7"]),
    "vae-groups": (config("vae", norm_num_groups=3), ["vae/config.json norm_num_groups"]),
    "activation": (config("unet", act_fn="foo"), ["act_fn is one of", "foo"]),
    "text-activation": (config("text_encoder", hidden_act="foo"), ["hidden_act is one of"]),
    "text-heads": (config("text_encoder", num_attention_heads=5), ["num_attention_heads divides hidden_size 24"]),
    "scaling": (config("vae", scaling_factor="x"), ["scaling_factor is a number above 0", "says x"]),
    "quantized": (config("unet", quantization_config={"load_in_8bit": True}), ["is quantized", "without quantization"]),
    "whole-numbers": (dtype(UNET, torch.int8), ["floating-point", "I8", "quantized"]),
    "lcm-base": (config("unet", time_cond_proj_dim=256), ["needs more than a text (time_cond_proj_dim 256)"]),
    "onnx": (moved(UNET, "unet/model.onnx"), ["is for ONNX (model.onnx)", "in safetensors"]),
    "openvino": (moved(UNET, "unet/openvino_model.xml", "unet/openvino_model.bin"), ["is for OpenVINO"]),
    "gguf": (moved(UNET, "unet/model.gguf"), ["is for GGUF"]),
    "kandinsky": (kandinsky, ["is of another family (KandinskyV22Pipeline)", "1.x or 2.x"]),
    "dead-link": (dead_link, ["symbolic link to nothing"]),
    "utf16-config": (utf16, ["vae/config.json is no valid JSON in UTF-8"]),
    "added-token": (add_token, ["81 and 80 tokens", "added to a tokenizer"]),
    "bool-tokenizer": (config("tokenizer", model_max_length=True), ["model_max_length True"]),
    "strange-betas": (config("scheduler", beta_schedule="exponential"), ["beta_schedule", "'exponential'"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, words = MODELS[name]
    folder = copied(tiny_folder, tmp_path, change)
    monkeypatch.setattr("unicon.loading.load_part", None)  # nothing is loaded
    with pytest.raises((ValueError, FileNotFoundError)) as library:
        UniCon.from_pretrained(folder, device="cpu")
    with pytest.raises(SettingError) as command:
        resolve_model(UniConModel(model=str(folder), conditions=("depth",)))
    assert str(command.value) == f"--model: {library.value}"
    assert all(word in str(library.value) for word in words), library.value


def test_pickles_and_other_files_as_model(tmp_path: Path) -> None:
    for name, words in (("a.ckpt", ["single file", "from_single_file", "can run code"]), ("a.zip", ["is a file"])):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ValueError) as error:
            UniCon.from_pretrained(str(tmp_path / name))
        assert all(word in str(error.value) for word in words)


SINGLE = {
    "sdxl": ("conditioner.embedders.1.model.ln_final.weight", "is Stable Diffusion XL"),
    "sd3": ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "diffusion transformer"),
    "lora": ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "LoRA (kohya). Give its base with --model"),
    "adapter": ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.joint_out.weight", "is a UniCon adapter"),
    "vae": ("decoder.conv_in.weight", "is an autoencoder. Give a whole model"),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_single_files_that_are_no_model(name: str, tmp_path: Path) -> None:
    key, words = SINGLE[name]
    save_file({key: torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=re.escape(words)):
        UniCon.from_pretrained(tmp_path / "a.safetensors")


PIPELINE = {
    "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
}  # fmt: skip


def run_printed(message: str, **replaced: str) -> None:
    """Run the command that an error prints."""
    command = next(line for line in message.splitlines() if line.startswith("  python -c "))
    (code,) = shlex.split(command)[2:]
    for old, new in replaced.items():
        code = code.replace(old, new)
    exec(code, {})


def test_the_printed_conversions_work(tiny_folder: Path, tmp_path: Path) -> None:
    """Of a single file and of a folder of pickles; a quote in a path does no harm."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "it's a model"))
    (folder / "model_index.json").write_text(json.dumps(PIPELINE))
    write_checkpoint(folder, tmp_path / "it's one.safetensors")
    with pytest.raises(ValueError, match="then give .*it's one") as single:
        UniCon.from_pretrained(tmp_path / "it's one.safetensors")
    run_printed(str(single.value), safety_checker=f"config={str(folder)!r}, safety_checker")  # there is no network
    for file, name in ((UNET, "diffusion_pytorch_model.bin"), (VAE, "diffusion_pytorch_model.bin"),
                       (TEXT, "pytorch_model.bin")):  # fmt: skip
        torch.save(load_file(folder / file), (folder / file).with_name(name))
        (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match="then give .*it's a model-safetensors") as pickled:
        UniCon.from_pretrained(folder)
    run_printed(str(pickled.value))
    for converted in (tmp_path / "it's one", tmp_path / "it's a model-safetensors"):
        check_model(converted)
        for file in (UNET, VAE, TEXT):
            ours, theirs = load_file(converted / file), load_file(tiny_folder / file)
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_other_predictions_are_models_too(prediction: str, tiny_folder: Path, tmp_path: Path) -> None:
    check_model(copied(tiny_folder, tmp_path, config("scheduler", prediction_type=prediction)))


def test_a_home_that_does_not_exist_is_a_path_that_does_not_exist() -> None:
    with pytest.raises(FileNotFoundError, match="nosuchuser"):
        UniCon.from_pretrained("~nosuchuser/model")


def test_a_native_size_of_two_numbers(tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path, config("unet", sample_size=[16, 16]))
    assert UniCon.from_pretrained(folder, device="cpu").native_px == 32


@pytest.mark.parametrize(
    "change", [config("tokenizer", padding_side="left"), config("tokenizer", truncation_side="left")]
)
def test_how_a_tokenizer_fills_up_is_in_the_configuration(change: Change, tiny_folder: Path, tmp_path: Path) -> None:
    other = copied(tiny_folder, tmp_path, change)
    assert model_config(other)["tokenizer"] != model_config(tiny_folder)["tokenizer"]


def test_noise_prediction_without_signal_is_refused_before_work(tiny_folder: Path, tmp_path: Path) -> None:
    limits = ModelLimits.of_folder(copied(tiny_folder, tmp_path, config("scheduler", rescale_betas_zero_snr=True)))
    limits.check(SamplingOptions(timestep_spacing="leading"))
    with pytest.raises(ValueError, match="zero terminal SNR.*Use timestep_spacing leading"):
        limits.check(SamplingOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "int8"}, "dtype is float16"), ({"device": "nope"}, "A device is cpu"),
     ({"device": "cuda:99"}, "GPUs here"), ({"adapters": "depth"}, "by the names of their conditions"),
     ({"loras": ("a", 0.5)}, "pairs"),
     ({"loras": [("a", "0.5")]}, "nothing at 'a'|finite number")],
)  # fmt: skip
def test_arguments_of_another_kind(options: dict[str, Any], message: str, tiny_folder: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        UniCon.from_pretrained(tiny_folder, **{"device": "cpu", **options})
