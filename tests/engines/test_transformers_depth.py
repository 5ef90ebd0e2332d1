"""Depth estimators of transformers: a tiny one of every type, written to a folder and read by the real loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from engines import parse_engine
from engines.depth import DEPTH, predicts, relative_inverse_depth
from tests.support.tiny_engines import DEPTH_MODELS, write_depth_model

EXPECTED = {
    "depth_anything": "disparity", "depth_anything_metric": "depth", "dpt": "disparity", "dpt_dinov2": "depth",
    "zoedepth": "depth", "zoedepth_two_heads": "depth", "depth_pro": "depth", "glpn": "depth",
}  # fmt: skip


def images(*sizes: tuple[int, int]) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)) for size in sizes]


def load(folder: Path, *options: str) -> Any:
    return parse_engine(f"transformers:{folder}", options).load(folder, "cpu")


def reference(folder: Path, image: Image.Image) -> np.ndarray:
    """What transformers itself predicts, as its documentation says."""
    processor: Any = AutoImageProcessor.from_pretrained(folder)
    model: Any = AutoModelForDepthEstimation.from_pretrained(folder)
    size = [image.size[::-1]]
    with torch.no_grad():
        outputs = model(**processor(images=image, return_tensors="pt"))
    source = {"source_sizes": size} if "zoe" in folder.name else {}
    return processor.post_process_depth_estimation(outputs, target_sizes=size, **source)[0]["predicted_depth"].numpy()


@pytest.mark.parametrize("name", DEPTH_MODELS)
def test_a_map_is_what_the_library_predicts_whatever_shares_its_batch(name: str, tmp_path: Path) -> None:
    folder = write_depth_model(tmp_path / name, name)
    engine = load(folder)
    assert engine.engine.predicts == EXPECTED[name]
    many = images((96, 64), (96, 64), (192, 128))
    sizes = [engine.working_size(image.size) for image in many]
    together = engine.estimate(many[:2], "depth", seeds=[0, 1])
    for image, found in zip(many, together, strict=False):
        assert found.shape == (64, 96) and found.dtype == np.float32 and (found.min(), found.max()) == (0.0, 1.0)
        np.testing.assert_allclose(found, engine.estimate([image], "depth", seeds=[7])[0], atol=2e-4)
        expected = relative_inverse_depth(reference(folder, image), EXPECTED[name])
        np.testing.assert_allclose(found, expected, atol=2e-4)
    if sizes[0] == sizes[2]:  # images of several sizes share a batch where the model works at one size
        mixed = engine.estimate(many, ("depth",), seeds=[0, 1, 2])
        assert mixed[2]["depth"].shape == (128, 192)
        np.testing.assert_allclose(mixed[0]["depth"], together[0], atol=2e-4)


def test_working_sizes_are_those_of_the_processor(tmp_path: Path) -> None:
    engine = load(write_depth_model(tmp_path / "model"))
    for size in ((96, 64), (50, 70), (33, 100)):
        assert engine.working_size(size) == engine.engine.prepare(images(size)).pixels.shape[:1:-1]


def test_pickled_weights_are_read_as_tensors(tmp_path: Path) -> None:
    safe, pickled = write_depth_model(tmp_path / "safe"), write_depth_model(tmp_path / "pickled", pickled=True)
    names = [name for name, _ in parse_engine(f"transformers:{pickled}").files(pickled)]
    assert names == ["config.json", "preprocessor_config.json", "pytorch_model.bin"]
    (image,) = images((96, 64))
    maps = [load(folder).estimate([image], "depth", seeds=[0])[0] for folder in (safe, pickled)]
    np.testing.assert_array_equal(*maps)


def test_models_that_are_not_complete_are_refused(tmp_path: Path) -> None:
    folder = write_depth_model(tmp_path / "model", "dpt")
    spec = parse_engine(f"transformers:{folder}")
    weights = load_file(folder / "model.safetensors")
    unused = {name: value for name, value in weights.items() if "layers.0.residual_layer1" not in name}
    save_file(unused, folder / "model.safetensors", {"format": "pt"})
    spec.load(folder, "cpu")  # published DPT models lack these
    save_file(dict(list(unused.items())[1:]), folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 \("):
        spec.load(folder, "cpu")
    for name in ("model.safetensors", "preprocessor_config.json"):
        (folder / name).rename(tmp_path / name)
        with pytest.raises(FileNotFoundError, match=f"lacks .*{'weights' if 'safe' in name else name}"):
            spec.files(folder)


def test_a_model_of_an_unknown_type_needs_a_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of type 'new_depth'.*--engine-option predicts=depth"):
        predicts({"model_type": "new_depth"}, {}, "x")
    assert predicts({"model_type": "new_depth"}, {"predicts": DEPTH}, "x") == DEPTH
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="is of type 'bert'"):
        parse_engine(f"transformers:{tmp_path}").makes(tmp_path)
