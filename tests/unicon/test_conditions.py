from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from unicon.adapters.config import AdapterConfig
from unicon.conditions import CONDITIONS, Condition


def a_map(kind: Condition, size: tuple[int, int] = (7, 5)) -> np.ndarray:
    channels = [3] if kind.channels == 3 else []
    values = np.random.default_rng(0).random((size[1], size[0], *channels), dtype=np.float32)
    values.flat[0], values.flat[1] = 0.0, 1.0
    return values


def test_triggers_are_the_published_ones() -> None:
    triggers = {name: kind.trigger for name, kind in CONDITIONS.items()}
    assert triggers == {
        "depth": "depth_map, ", "edge": "edge_map, ", "pose": "pose_map, ", "appearance": "", "identity": "", "id": "",
        "normal": "normal_map, ",  # published without one: formed like the others
    }  # fmt: skip
    assert AdapterConfig(name="id").trigger == "" and AdapterConfig(name="mine", kind="edge").trigger == "edge_map, "


@pytest.mark.parametrize("name", CONDITIONS)
def test_maps_come_back_from_files_and_from_the_model(name: str, tmp_path) -> None:
    kind = CONDITIONS[name]
    values = a_map(kind)
    kind.encode(values).save(tmp_path / "map.png")
    stored = Image.open(tmp_path / "map.png")
    levels = 65535 if name == "depth" else 255
    assert np.asarray(stored).max() == levels
    assert np.abs(kind.decode(stored) - values).max() <= 0.5 / levels + 1e-7
    tensor = kind.to_model(values)
    assert tensor.shape == (3, 5, 7) and tensor.min() == -1 and tensor.max() == 1
    assert np.allclose(kind.from_model(tensor), values, atol=1e-6)
    assert kind.from_model(torch.full((3, 2, 2), 1.5)).max() == 1.0
    assert kind.preview(values).mode == "RGB" and kind.preview(values).size == (7, 5)


def test_depth_keeps_16_bits(tmp_path) -> None:
    depth = CONDITIONS["depth"]
    depth.encode(a_map(depth)).save(tmp_path / "depth.png")
    assert Image.open(tmp_path / "depth.png").mode == "I;16"
    assert depth.decode(Image.new("L", (2, 2), 255)).max() == 1.0


def test_depth_preview_is_brighter_when_nearer() -> None:
    preview = np.asarray(CONDITIONS["depth"].preview(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))).sum(axis=-1)
    assert preview.shape == (1, 3) and preview[0, 0] < preview[0, 1] < preview[0, 2]


@pytest.mark.parametrize("name", CONDITIONS)
def test_checked_maps(name: str) -> None:
    kind = CONDITIONS[name]
    values = a_map(kind)
    assert kind.check(values) is values
    assert kind.check(values.astype(np.float64)).dtype == np.float32
    wrong = values[..., 0] if kind.channels == 3 else np.stack([values] * 3, -1)
    for bad in (wrong, (values * 255).astype(np.uint8), values[:0]):
        with pytest.raises(ValueError, match=f"{kind.name} map is a float array.*decode"):
            kind.check(bad)
    for bad in (values * 255, values - 0.5, np.where(values > 0.5, np.nan, values)):
        with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
            kind.check(bad)
