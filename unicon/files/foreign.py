"""Recognizing models and files of other kinds than Stable Diffusion 1.x or 2.x and UniCon adapters, by their names.

Tested in tests/unicon/files/test_inspection.py and test_adapter_inspection.py.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from unicon.files.headers import Shapes, read_json

WANTED_MODEL = (
    "A model is a folder of Stable Diffusion 1.x or 2.x in the diffusers layout (unet/, vae/, text_encoder/, "
    "tokenizer/, scheduler/)"
)
WANTED_ADAPTER = (
    "An adapter is a UniCon .safetensors file or an official adapter folder (xy_lora/, yx_lora/, model.pth)"
)
LORA_CURE = "Fuse it into the base with --lora PATH (in the library: loras=[PATH]), beside an adapter"
OTHER_BASE = "Give a 1.x or 2.x folder, such as stable-diffusion-v1-5"


def foreign_model(folder: Path) -> str | None:
    """Describe a folder of another kind, as "what it is. cure"; None if nothing is recognized."""
    index = _config(folder / "model_index.json")
    family = str(index.get("_class_name", ""))
    if (folder / "unet" / "config.json").is_file():
        unet = _config(folder / "unet" / "config.json")
        if unet.get("addition_embed_type") == "text_time" or (folder / "text_encoder_2").is_dir():
            return f"is Stable Diffusion XL. {OTHER_BASE}"
        whole = all((folder / part / "config.json").is_file() for part in ("vae", "text_encoder"))
        if family and "StableDiffusion" not in family and not whole:
            return f"is of another family ({family}). {OTHER_BASE}"
        return None
    if (folder / "transformer").is_dir():
        return f"is a diffusion transformer ({family or 'Stable Diffusion 3, Flux, ...'}). {OTHER_BASE}"
    if (folder / "prior").is_dir() or (folder / "decoder").is_dir():
        return f"is a cascade of models ({family or 'a prior and a decoder'}). {OTHER_BASE}"
    if (folder / "model.pth").is_file() or list(folder.glob("*/model.pth")):
        return "is an official UniCon adapter. Give it with --adapter, and its base with --model"
    config = _config(folder / "config.json")
    if config.get("_class_name") == "UNet2DConditionModel":
        return f"is a UNet alone. Give the folder that holds unet/, {folder.resolve().parent} perhaps"
    if config.get("_class_name"):
        return f"is a {config['_class_name']} alone. Give the whole model's folder"
    if (folder / "pytorch_lora_weights.safetensors").is_file() or (folder / "adapter_config.json").is_file():
        return "is a LoRA. Give its base with --model, and the LoRA with --lora"
    exported = other_format(folder / "unet") or other_format(folder)
    if exported:
        return f"{exported}. Give the same model in safetensors"
    files = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".ckpt"))
    if files:
        return f"holds single-file checkpoints ({', '.join(files[:3])}). Name the file to learn how to convert it"
    return None


_FORMATS = {".onnx": "ONNX", ".xml": "OpenVINO", ".msgpack": "Flax", ".gguf": "GGUF", ".mlpackage": "Core ML",
            ".mlmodelc": "Core ML", ".h5": "TensorFlow", ".pb": "TensorFlow", ".engine": "TensorRT",
            ".plan": "TensorRT"}  # fmt: skip


def other_format(place: Path) -> str | None:
    """Which other program a file or the weights in a folder are for, as "is for ONNX (model.onnx)"."""
    names = [place] if place.is_file() or not place.is_dir() else sorted(place.iterdir())
    found = next((path for path in names if path.suffix.lower() in _FORMATS), None)
    return None if found is None else f"is for {_FORMATS[found.suffix.lower()]} ({found.name})"


def check_family(folder: Path) -> None:
    """Refuse a folder that is no Stable Diffusion 1.x or 2.x model.

    Raises:
        FileNotFoundError: It has no UNet.
        ValueError: It is a known thing of another kind.
    """
    other = foreign_model(folder)
    if other:
        raise ValueError(f"{WANTED_MODEL}; {folder} {other}.")
    if not (folder / "unet" / "config.json").is_file():
        raise FileNotFoundError(f"{WANTED_MODEL}; {folder} has no unet/config.json. Correct the path.")


def _config(path: Path) -> dict[str, Any]:
    """A configuration; empty where it cannot be read, which another check reports."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


_KEYS: tuple[tuple[str, str, str], ...] = (
    (r".*\.attn1n\..*lora\.(down|up)\.weight", "is a part of an official adapter",
     "Give the folder that holds xy_lora/, yx_lora/ and model.pth"),
    (r"lora_(unet|te\d?|prior)_.*\.(hada|lokr|oft|boft|glora|diff).*", "is a LyCORIS network", "Give a UniCon adapter"),
    (r"lora_(unet|te\d?)_.*", "is a LoRA (kohya)", LORA_CURE),
    (r"base_model\.model\..*", "is a LoRA (peft)", LORA_CURE),
    (r"(unet|text_encoder)\..*lora.*", "is a LoRA (diffusers)", LORA_CURE),
    (r".*\.lora_(A|B)(\.default)?\.weight|.*\.lora\.(down|up)\.weight|.*_lora\.(down|up)\.weight", "is a LoRA",
     LORA_CURE),
    (r"(transformer|lora_transformer).*lora.*", "is a LoRA of a diffusion transformer", "Give a UniCon adapter"),
    (r"controlnet_cond_embedding\..*|control_model\..*|input_hint_block\..*|controlnet_down_blocks\..*",
     "is a ControlNet", "UniCon has adapters of its own for depth, edge and pose"),
    (r"(image_proj|ip_adapter)\..*", "is an IP-Adapter", "UniCon has adapters of its own: appearance, id"),
    (r"adapter\.(body|conv_in)\..*|body\.\d+\..*", "is a T2I-Adapter", "UniCon has adapters of its own"),
    (r"model\.diffusion_model\..*|first_stage_model\..*|cond_stage_model\..*", "is a whole checkpoint in one file",
     "Give a UniCon adapter; a model goes to --model, as a folder"),
    (r"(decoder|encoder)\.(mid|conv_in|conv_out|up|down).*", "is an autoencoder", "Give a UniCon adapter"),
    (r"(text_model\.)?(embeddings|encoder)\..*", "is a text encoder", "Give a UniCon adapter"),
    (r"(down_blocks|up_blocks|mid_block|conv_in)\..*(?<!lora)\.(weight|bias)", "is a UNet",
     "Give a UniCon adapter; a model goes to --model, as a folder"),
    (r"emb_params|<.*>|string_to_param.*|clip_[lg]", "is a textual inversion (a token's embedding)",
     "Give a UniCon adapter; textual inversions are not supported"),
)  # fmt: skip
"""(pattern of a key, what a file with such keys is, what to do). The first match decides."""


def foreign_tensors(shapes: Shapes) -> tuple[str, str] | None:
    """(what a file with these tensors is, what to do); None where the keys are unknown."""
    for pattern, what, cure in _KEYS:
        if any(re.fullmatch(pattern, key) for key in shapes):
            return what, cure
    if shapes and len(shapes) == 1 and len(next(iter(shapes.values()))) == 2:
        return "is a textual inversion (a token's embedding)", "Give a UniCon adapter"
    return None


def foreign_checkpoint(shapes: Shapes) -> str | None:
    """Describe a single file that cannot be converted into a model, as "what it is. cure"; None where it can."""
    if any(key.startswith("conditioner.embedders.1") for key in shapes):
        return f"is Stable Diffusion XL. {OTHER_BASE}"
    if any(key.startswith("model.diffusion_model.input_blocks.") for key in shapes):
        return None
    if any(re.match(r"(model\.diffusion_model\.)?(joint_blocks|double_blocks)\.", key) for key in shapes):
        return f"is a diffusion transformer. {OTHER_BASE}"
    if any(".joint_out." in key for key in shapes):
        return "is a UniCon adapter. Give it with --adapter, and its base with --model"
    what, _ = foreign_tensors(shapes) or ("holds no model", "")
    return f"{what}. Give {'its base with --model, and this with --lora' if 'LoRA' in what else 'a whole model'}"


def conversion(code: str, folder: Path) -> str:
    """A command that saves a pipeline which diffusers can read as a folder that can be loaded here."""
    load = f"from diffusers import StableDiffusionPipeline as P; {code}.save_pretrained({str(folder)!r})"
    return f"python -c {shlex.quote(load)}"


def is_ldm(keys: Collection[str]) -> bool:
    """Whether tensors have the names of the original Stable Diffusion code."""
    return any(
        re.match(r"model\.diffusion_model\.|input_blocks\.|(encoder|decoder)\.(down|up|mid)\.|first_stage_model\.", key)
        for key in keys
    )


def foreign_unet(config: Mapping[str, Any], latent_channels: int) -> str | None:
    """Describe a UNet that takes more than latents and text, as "what it is. cure"; None for others."""
    extra = [name for name in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type", "addition_embed_type",
                               "time_cond_proj_dim")
             if config.get(name) is not None]  # fmt: skip
    if extra:
        return f"has a UNet that needs more than a text ({extra[0]} {config[extra[0]]}). {OTHER_BASE}"
    inputs, outputs = config.get("in_channels", 4), config.get("out_channels", 4)
    if inputs == latent_channels == outputs:
        return None
    kinds = {
        2 * latent_channels + 1: "an inpainting UNet",
        2 * latent_channels: "an InstructPix2Pix UNet",
        latent_channels + 1: "a UNet that takes depth maps",
    }
    what = kinds.get(inputs, "a UNet of another autoencoder") if outputs == latent_channels else (
        "a UNet of another autoencoder"
    )  # fmt: skip
    return (
        f"is {what}: it has {inputs} input and {outputs} output channels, and latents have {latent_channels}. "
        "Give the text-to-image model; `inpaint` needs no inpainting UNet"
    )
