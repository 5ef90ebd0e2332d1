"""Image-to-text models, read by the real loader from tiny folders of random weights."""

from pathlib import Path

import pytest
from PIL import Image

from engines.captioner import check_captioner, files_to_load, load_captioner, needs_prompt
from tests.support.tiny_captioner import write_tiny_blip, write_tiny_llava, write_tiny_vit_gpt2

IMAGES = [Image.new("RGB", (48, 32), color) for color in ("red", "blue", "white")]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_captioner_with_one_processor_gives_the_same_texts_in_any_batch(tmp_path: Path) -> None:
    folder = write_tiny_blip(tmp_path / "blip")
    assert {"config.json", "model.safetensors"} <= {*files_to_load(names(folder))}
    check_captioner(folder)
    assert not needs_prompt(folder)
    calls = []
    captioner = load_captioner(folder, "cpu", None).in_turns(lambda call: calls.append(1) or call())
    texts = captioner.caption(IMAGES)
    assert all(text and text == " ".join(text.split()) for text in texts)
    assert [captioner.caption([image])[0] for image in IMAGES] == texts
    assert len(calls) == 4 and captioner.dtype == "float32"


def test_an_encoder_with_a_decoder_is_a_captioner_too(tmp_path: Path) -> None:
    folder = write_tiny_vit_gpt2(tmp_path / "vit")
    check_captioner(folder)
    assert len(load_captioner(folder, "cpu", "float32").caption(IMAGES)) == 3


def test_a_model_for_conversations_is_asked(tmp_path: Path) -> None:
    folder = write_tiny_llava(tmp_path / "llava")
    check_captioner(folder)
    assert needs_prompt(folder)
    captioner = load_captioner(folder, "cpu", "float32", "red boat on the sea")
    texts = captioner.caption(IMAGES)
    assert all(text and not text.startswith("red boat on the sea") for text in texts)
    assert [captioner.caption([image])[0] for image in IMAGES] == texts
    assert load_captioner(folder, "cpu", "float32", "calm clouds").caption(IMAGES) != texts


def test_what_is_no_captioner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="config.json and model.safetensors; there are pytorch_model.bin"):
        files_to_load(["pytorch_model.bin", "sub/config.json"])
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is of the type bert. Name another model"):
        check_captioner(tmp_path)
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "own.py"}}')
    with pytest.raises(ValueError, match="runs code of its own"):
        check_captioner(tmp_path)
