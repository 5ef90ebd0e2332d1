"""ControlNet: a tiny one on the tiny Stable Diffusion of the tests, read by the real loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import EngineSpec, parse_engine
from tests.support.tiny import write_tiny_model
from tests.support.tiny_engines import write_controlnet
from unicon.outcomes import Failure, NonFiniteError

PROMPTS = ["a cat", "a dog on a long long walk"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the ControlNet and of its base model."""
    root = tmp_path_factory.mktemp("controlnet")
    return write_controlnet(root / "net"), write_tiny_model(root / "base")


def spec_of(folders: tuple[Path, Path], *options: str) -> EngineSpec:
    return parse_engine(f"controlnet:{folders[0]}", ["num_inference_steps=2", *options], base=str(folders[1]))


def load(folders: tuple[Path, Path], *options: str) -> Any:
    return spec_of(folders, *options).load(folders[0], "cpu", base=folders[1])


def maps(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.random((40, 60), dtype=np.float32) for _ in range(count)]


def pixels(generated: Any) -> np.ndarray:
    return np.asarray(generated.image).astype(int)


def test_images_follow_maps_and_seeds_whatever_shares_their_batch(folders: tuple[Path, Path]) -> None:
    engine, given = load(folders), maps(2)
    assert engine.adapter_kind("depth").name == "depth" and engine.working_size((60, 40)) == (40, 24)
    together = engine.synthesize({"depth": given}, PROMPTS, seeds=[1, 2], negative_prompts=["fog", "fog"])
    for row, one in enumerate(together):
        (other,) = engine.synthesize(
            {"depth": given[row : row + 1]}, PROMPTS[row : row + 1], seeds=[1 + row], negative_prompts=["fog"]
        )
        assert one.image.size == (60, 40) and np.abs(pixels(one) - pixels(other)).max() <= 1
        assert one.conditions["depth"] is given[row]
    assert [each.prompt_tokens_cut for each in together] == [0, 9]
    turned = engine.synthesize({"depth": [1 - each for each in given]}, PROMPTS, seeds=[1, 2])
    unheard = engine.synthesize({"depth": given}, PROMPTS, seeds=[1, 2], weights={"depth": 0.0})
    reseeded = engine.synthesize({"depth": given}, PROMPTS, seeds=[3, 4])
    for others in (turned, unheard, reseeded):
        assert np.abs(pixels(together[0]) - pixels(others[0])).max() > 1


def test_options(folders: tuple[Path, Path]) -> None:
    engine = load(folders, "kind=edge", "resolution_px=64", "guidance_scale=1")
    assert engine.adapter_kind("sketch").name == "edge" and engine.working_size((60, 40)) == (80, 52)
    assert engine.synthesize({"sketch": maps(1)}, ["a"], seeds=[0])[0].image.size == (60, 40)
    with pytest.raises(ValueError, match="follows one exact condition"):
        engine.synthesize({"sketch": maps(1)}, ["a"], seeds=[0], strength=0.5)


def test_an_image_that_is_not_finite_fails_alone(folders: tuple[Path, Path]) -> None:
    engine = load(folders)
    given = maps(2)
    given[1][0, 0] = np.nan
    with pytest.raises(NonFiniteError) as raised:
        engine.synthesize({"depth": given}, PROMPTS, seeds=[1, 2])
    good, bad = raised.value.outcomes
    assert good.image.size == (60, 40) and isinstance(bad, Failure) and "not finite in float32" in bad.reason


def test_a_controlnet_of_another_base_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    spec = spec_of(folders)
    spec.family.check_base(*folders)
    config = json.loads((folders[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "cross_attention_dim": 768}))
    with pytest.raises(ValueError, match="its cross_attention_dim is 768, that of the base is 24"):
        spec.family.check_base(tmp_path, folders[1])
    (tmp_path / "config.json").write_text('{"_class_name": "FluxControlNetModel"}')
    with pytest.raises(ValueError, match="is a FluxControlNetModel"):
        spec.makes(tmp_path)
    with pytest.raises(FileNotFoundError, match="a ControlNet has config.json, diffusion"):
        spec.files(tmp_path)
