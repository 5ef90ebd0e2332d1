"""Models that describe images in words: any image-to-text model of transformers, in safetensors and without own code.

Tested in tests/engines/test_captioner.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from unicon.files.headers import read_json

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PACKAGE = "transformers"
MAX_NEW_TOKENS = 60
"""Longest caption, in tokens."""
PROMPT = "Describe this image in one sentence."
"""What models for conversations are asked."""


def files_to_load(names: Collection[str]) -> list[str]:
    """Choose the files to load among those of a folder: weights in safetensors, configurations and the vocabulary.

    Raises:
        FileNotFoundError: There is no configuration, or there are no weights in safetensors.
    """
    flat = sorted(name for name in names if "/" not in name)
    if "config.json" not in flat or not any(name in flat for name in WEIGHTS):
        raise FileNotFoundError(
            f"a captioner is a folder of transformers with config.json and {WEIGHTS[0]}; there are "
            f"{', '.join(flat[:8]) or 'no files'}. Correct the path, or convert its weights to safetensors."
        )
    return [name for name in flat if name.endswith((".safetensors", ".json", ".txt", ".jinja", ".model"))]


def check_captioner(folder: Path) -> None:
    """Check by its configuration that transformers has this model and that it describes images.

    Raises:
        ValueError: It needs code of its own, or does something else.
    """
    config = read_json(folder / "config.json")
    if "auto_map" in config and "model_type" not in config:
        raise ValueError(f"{folder} runs code of its own, which is not allowed. Choose a model that transformers has.")
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    kind = config.get("model_type")
    if kind not in KNOWN and kind not in OTHERS:
        raise ValueError(
            f"a captioner is an image-to-text model of transformers, such as blip, git or vision-encoder-decoder; "
            f"{folder} is of the type {kind}. Name another model."
        )


def needs_prompt(folder: Path) -> bool:
    """Return whether a model expects the turns of a conversation, and answers a question about an image."""
    config = folder / "tokenizer_config.json"
    return bool([*folder.glob("chat_template.*")]) or (config.is_file() and "chat_template" in read_json(config))


OTHERS = ("vision-encoder-decoder",)
"""Image-to-text models that transformers does not list among those for images and text."""


@dataclass(frozen=True, kw_only=True)
class Captioner:
    """A loaded model. The same image always gets the same caption: the most likely word is taken, one after another."""

    model: Any
    processor: Any
    """Image processor; of a model for conversations, the processor of images and text."""
    tokenizer: Any
    prompt: str = ""
    """What a model for conversations is asked; empty for other models."""
    device_name: str
    dtype: str
    weights_sha256: str = ""
    run: Callable[[Callable[[], Any]], Any] | None = None
    """Runs a call on the device in turns with others; see `in_turns`."""

    working_size = (224, 224)
    """All images are scaled to one size by the model itself, so that any of them share a batch."""

    def in_turns(self, run: Callable[[Callable[[], Any]], Any]) -> Captioner:
        """Return the same model for several threads, whose calls of the device all go through `run`."""
        return replace(self, run=run)

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Describe RGB images, each in one line."""
        inputs = self._inputs(images)
        call = partial(self._generate, inputs)
        tokens = call() if self.run is None else self.run(call)
        asked = inputs["input_ids"].shape[1] if self.prompt else 0
        texts = self.tokenizer.batch_decode(tokens[:, asked:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _inputs(self, images: Sequence[Image.Image]) -> Mapping[str, Any]:
        if not self.prompt:
            return {"pixel_values": self.processor(images=list(images), return_tensors="pt")["pixel_values"]}
        question = {"type": "text", "text": self.prompt}
        turns = [[{"role": "user", "content": [{"type": "image", "image": each}, question]}] for each in images]
        return self.processor.apply_chat_template(
            turns,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )

    def _generate(self, inputs: Mapping[str, Any]) -> Any:
        import torch

        device, dtype = self.model.device, self.model.dtype
        placed = {name: each.to(device, dtype if each.is_floating_point() else None) for name, each in inputs.items()}
        with torch.inference_mode():
            return self.model.generate(**placed, do_sample=False, num_beams=1, max_new_tokens=MAX_NEW_TOKENS).cpu()


def load_captioner(folder: Path, device: str | None, dtype: str | None, prompt: str = "") -> Captioner:
    """Load a captioner on a device.

    Args:
        folder: Its folder, see `files_to_load`.
        device: Name of a torch device; None: the GPU if there is one, else the CPU.
        dtype: float16, bfloat16 or float32; None: float16 on a GPU and float32 on a CPU.
        prompt: What a model for conversations is asked; empty for other models.
    """
    import torch
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
        VisionEncoderDecoderModel,
    )

    from unicon.devices import floating_dtype, usable_device

    place = usable_device(device)
    chosen = dtype or ("float16" if place.type == "cuda" else "float32")
    kind = read_json(folder / "config.json")["model_type"]
    family: Any = VisionEncoderDecoderModel if kind in OTHERS else AutoModelForImageTextToText
    only: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model = family.from_pretrained(folder, use_safetensors=True, dtype=floating_dtype(chosen), **only)
    processor = (AutoProcessor if prompt else AutoImageProcessor).from_pretrained(folder, **only)
    tokenizer = processor.tokenizer if prompt else AutoTokenizer.from_pretrained(folder, **only)
    tokenizer.padding_side = "left"  # so that all answers of a batch begin at the same place
    return Captioner(
        model=model.to(place).eval(),
        processor=processor,
        tokenizer=tokenizer,
        prompt=prompt,
        device_name=torch.cuda.get_device_name(place) if place.type == "cuda" else place.type,
        dtype=chosen,
    )
