"""Marigold: tiny pipelines for depth and normals, written to a folder and read by the real loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import MarigoldDepthPipeline
from PIL import Image

from engines import parse_engine
from tests.support.tiny_engines import write_marigold


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_marigold(tmp_path_factory.mktemp("marigold") / "depth")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (32, 48, 3), dtype=np.uint8)) for _ in range(2)]


def load(folder: Path, *options: str) -> Any:
    spec = parse_engine(f"marigold:{folder}", options)
    assert len(spec.files(folder)) == 12
    return spec.load(folder, "cpu")


def test_depth_is_what_the_pipeline_predicts_turned_around(depth_folder: Path, images: list[Image.Image]) -> None:
    pipeline: Any = MarigoldDepthPipeline.from_pretrained(depth_folder)
    expected = pipeline(images[0], generator=torch.Generator().manual_seed(5)).prediction[0, ..., 0]
    found = load(depth_folder).estimate(images[:1], "depth", seeds=[5])[0]
    np.testing.assert_allclose(found, 1 - expected, atol=1e-5)
    near = load(depth_folder, "near_to_far=0.5").estimate(images[:1], "depth", seeds=[5])[0]
    np.testing.assert_allclose(near, 0.5 * (1 - expected) / (0.5 + 0.5 * expected), atol=1e-5)


def test_a_row_depends_on_its_seed_and_not_on_its_neighbors(depth_folder: Path, images: list[Image.Image]) -> None:
    engine = load(depth_folder, "ensemble_size=3", "num_inference_steps=1")
    together = engine.estimate(images, "depth", seeds=[1, 2])
    alone = [engine.estimate([image], "depth", seeds=[seed])[0] for image, seed in zip(images, (1, 2), strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert one.shape == (32, 48) and 0 <= one.min() < one.max() <= 1
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert np.abs(engine.estimate(images[:1], "depth", seeds=[9])[0] - alone[0]).max() > 1e-3


def test_disparity_and_normals(tmp_path: Path, images: list[Image.Image]) -> None:
    folder = write_marigold(tmp_path / "normals", "Normals")
    normals = load(folder).estimate(images[:1], "normal", seeds=[0])[0]
    assert normals.shape == (32, 48, 3)
    lengths = np.linalg.norm(normals * 2 - 1, axis=-1)
    assert 0.9 < np.median(lengths) < 1.01
    with pytest.raises(ValueError, match="near_to_far belongs to a model that predicts depth"):
        parse_engine(f"marigold:{folder}", ["near_to_far=0.5"]).makes(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "MarigoldDepthPipeline", "prediction_type": "disparity"}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert load(folder).estimate(images[:1], "depth", seeds=[0])[0].shape == (32, 48)


def test_other_and_incomplete_folders_are_refused(depth_folder: Path, tmp_path: Path) -> None:
    spec = parse_engine(f"marigold:{depth_folder}")
    names = [path.relative_to(depth_folder).as_posix() for path in depth_folder.rglob("*")]
    with pytest.raises(FileNotFoundError, match=r"a Marigold folder has vae/\*.safetensors"):
        spec.family.choose("x", [name for name in names if name != "vae/diffusion_pytorch_model.safetensors"])
    (tmp_path / "model_index.json").write_text('{"_class_name": "MarigoldIntrinsicsPipeline"}')
    with pytest.raises(ValueError, match="is a MarigoldIntrinsicsPipeline. Name another folder"):
        spec.makes(tmp_path)
