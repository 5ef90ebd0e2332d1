"""Captioners that are found and hashed before they are loaded, and loaded in the actor."""

from pathlib import Path

import pytest
from PIL import Image

from pipelines.errors import SettingError
from pipelines.tasks.captioner_model import resolve_captioner
from tests.support.tiny_captioner import write_tiny_blip, write_tiny_llava


def test_a_captioner_is_resolved_and_built(tmp_path: Path) -> None:
    folder = write_tiny_blip(tmp_path / "blip")
    model, identity = resolve_captioner(str(folder), "float32")
    assert identity.name == "blip" and len(identity.weights_sha256) == 64
    assert identity.package.startswith("transformers ")
    captioner = model.with_device("cpu", 1).with_work(10).build()
    assert captioner.weights_sha256 == identity.weights_sha256
    assert captioner.caption([Image.new("RGB", (40, 30))])[0]
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(RuntimeError, match="has other files than where the command was started"):
        model.build()


def test_only_models_for_conversations_are_asked(tmp_path: Path) -> None:
    blip, llava = write_tiny_blip(tmp_path / "blip"), write_tiny_llava(tmp_path / "llava")
    assert resolve_captioner(str(blip), None)[1].prompt == ""
    with pytest.raises(SettingError, match="--caption-prompt: .*describes images without being asked"):
        resolve_captioner(str(blip), None, "describe it")
    model, identity = resolve_captioner(str(llava), None, "describe it")
    assert (model.prompt, identity.prompt) == ("describe it", "describe it")
    assert resolve_captioner(str(llava), None)[1].prompt == "Describe this image in one sentence."


def test_pickled_weights_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_blip(tmp_path / "blip")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SettingError, match="--captioner: "):
        resolve_captioner(str(folder), None)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(SettingError, match="convert its weights to safetensors"):
        resolve_captioner(str(folder), None)
