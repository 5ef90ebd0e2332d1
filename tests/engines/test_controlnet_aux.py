"""Annotators of controlnet-aux behind the interface of engines; networks have random weights of the real shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engines import parse_engine
from tests.support.images import square
from unicon.annotations import ANNOTATORS
from unicon.training.annotators import make_annotator


def load(name: str, *options: str, weights: Path | None = None) -> Any:
    spec = parse_engine(f"controlnet-aux:{name}", options, weights=str(weights) if weights else None)
    if weights is not None:
        spec.files(weights)
    return spec.load(weights, "cpu")


def write_teed(folder: Path) -> Path:
    from controlnet_aux.teed.ted import TED

    torch.manual_seed(0)
    torch.save(TED().state_dict(), folder / "5_model.pth")
    return folder


def write_mlsd(folder: Path) -> Path:
    from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large

    torch.manual_seed(0)
    torch.save(MobileV2_MLSD_Large().state_dict(), folder / "mlsd_large_512_fp32.pth")
    return folder


def test_edges_are_those_of_the_annotator_with_its_options() -> None:
    image = square((192, 128), (48, 32, 144, 96))
    engine = load("canny", "detect_px=128", "low_threshold=10", "high_threshold=20")
    (edges,) = engine.estimate([image], "edges", seeds=[0])
    expected = make_annotator("canny", detect_px=128, low_threshold=10, high_threshold=20)(image)
    np.testing.assert_array_equal(edges, np.asarray(expected.convert("L"), np.float32) / 255)
    assert engine.adapter_kind("edges").name == "edge" and engine.working_size((192, 128)) == (192, 128)
    assert edges.max() > 0.5 and engine.working_size((10, 1000)) == (128, 512)


@pytest.mark.parametrize("write", [write_teed, write_mlsd])
def test_networks_are_read_from_their_files(write: Any, tmp_path: Path) -> None:
    engine = load(write.__name__.removeprefix("write_"), "detect_px=64", weights=write(tmp_path))
    images = [square((96, 64)), Image.effect_noise((96, 64), 80).convert("RGB")]
    together = engine.estimate(images, "edge", seeds=[0, 0])
    for image, found in zip(images, together, strict=True):
        assert found.shape == (64, 96)
        np.testing.assert_array_equal(found, engine.estimate([image], "edge", seeds=[1])[0])
    assert together[1].std() > 0 or write is write_mlsd


def test_a_failure_of_the_network_is_not_an_empty_image(tmp_path: Path) -> None:
    """The detector of lines in the package returns a black image when its network raises an exception."""
    engine = load("mlsd", "detect_px=64", weights=write_mlsd(tmp_path))
    loud = engine.engine.annotate.__closure__[0].cell_contents
    loud.network.forward = lambda pixels: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.estimate([square((96, 64))], "mlsd", seeds=[0])


def test_files_of_another_network_are_refused(tmp_path: Path) -> None:
    write_teed(tmp_path).joinpath("5_model.pth").rename(tmp_path / "mlsd_large_512_fp32.pth")
    with pytest.raises(ValueError, match="needs the weights of mlsd_large_512_fp32.pth; those in .* are others"):
        load("mlsd", weights=tmp_path)
    with pytest.raises(FileNotFoundError, match="the annotator hed needs ControlNetHED.pth, which are absent"):
        load("hed", weights=tmp_path)


class PartlyLoaded:
    """Loads as the package loads ZoeDepth: what is absent stays at random, without an exception."""

    model: Any = None

    @classmethod
    def from_pretrained(cls, folder: str) -> Any:
        detector = cls()
        detector.model = torch.nn.Linear(2, 1)
        return detector


def test_absent_weights_of_zoedepth_are_noticed(tmp_path: Path) -> None:
    from unicon.training.detectors import _load_zoe

    path, whole = tmp_path / ANNOTATORS["zoe"].files[0], torch.nn.Linear(2, 1).state_dict()
    torch.save({"model": whole}, path)
    assert _load_zoe(PartlyLoaded, ANNOTATORS["zoe"], tmp_path).model
    torch.save({"model": {"weight": whole["weight"]}}, path)
    with pytest.raises(KeyError, match=r"1 weights are missing \(bias\)"):
        _load_zoe(PartlyLoaded, ANNOTATORS["zoe"], tmp_path)


def test_red_means_right_in_normals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package draws normals with red to the left; the condition has red to the right."""
    monkeypatch.setattr("unicon.training.annotators.make_annotator", lambda *names, **options: lambda image: image)
    (normals,) = load("normalbae").estimate([Image.new("RGB", (4, 4), (255, 128, 200))], "normal", seeds=[0])
    assert (np.round(normals * 255) == (0, 128, 200)).all()
