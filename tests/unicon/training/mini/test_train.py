# diffusers declares its outputs as tuples, and transformers decoded text as a list.
# pyright: reportAttributeAccessIssue=false
"""Every stage of the recipe of `mini` runs, and its parts work before they are trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from unicon import UniCon
from unicon.training.fit import FitConfig
from unicon.training.mini.models import install_adapters, read_models, save
from unicon.training.mini.pretrain import PretrainSampling, SceneLatents
from unicon.training.mini.recipe import SQUARE, MiniRecipe
from unicon.training.mini.scene_cache import PART_SIZE, SceneArrays, load_cache
from unicon.training.mini.scene_maps import SceneMaps
from unicon.training.mini.text import train_tokenizer
from unicon.training.mini.train import _pairs, train_mini
from unicon.training.mini.vae import new_vae, sample_crops
from unicon.training.pairs import PairSampling
from unicon.training.single_step import SingleStepSampling


def test_tokenizer_encodes_any_text(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["depth_map, a red box in a room with green walls"] * 3, tmp_path)
    text = "a zürich 猫 in a room!"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).replace(" ", "") == text.replace(
        " ", ""
    )
    assert len(tokenizer("a red box").input_ids) == 5


def _gradients(count: int = 12, size: int = 64) -> SceneArrays:
    """Images of one color each, with ramps for maps."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    ramp = np.linspace(0, 65535, size).astype(np.uint16)
    return SceneArrays(
        images=np.broadcast_to(colors, (count, size, size, 3)).copy(),
        inverse_depths=np.broadcast_to(ramp[:, None], (count, size, size)).copy(),
        edges=np.zeros((count, size, size), bool),
        poses=np.zeros((count, size, size, 3), np.uint8),
        captions=("a",) * count,
    )


def test_an_untrained_autoencoder_already_carries_colors() -> None:
    torch.manual_seed(0)
    vae = new_vae()
    crops = sample_crops(_gradients(), 48, 64, torch.Generator().manual_seed(0))
    with torch.no_grad():
        latents = vae.encode(crops).latent_dist.mean[:, :3].mean((2, 3))
    for channel in range(3):
        found = np.corrcoef(latents[:, channel].numpy(), crops[:, channel].mean((1, 2)).numpy())[0, 1]
        assert found > 0.8


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The whole recipe on next to nothing: two steps a stage on scenes of 32 x 32 pixels."""
    work, output = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("model")
    short = FitConfig(steps=2, learning_rate=1e-3, checkpoint_every=2, log_every=1, autocast_dtype="bfloat16")
    recipe = MiniRecipe(
        scenes={(32, 32): PART_SIZE},
        vae=short,
        vae_batch_size=2,
        pretrain=short,
        pretrain_sampling=PretrainSampling(batch_size=4),
        heads={"depth": 1.0, "pose": 0.5},
        align=short,
        aligning=PairSampling(batch_size=2, clean_image_fraction=0.5, min_snr_gamma=None, alignment_weight=1.0),
        together=short,
        sampling=PairSampling(
            batch_size=2, clean_image_fraction=0.5, min_snr_gamma=None, alignment_weight=0.1, heads_weight=0.5
        ),
        single_step_share=0.5,
        single_step=SingleStepSampling(batch_size=2),
        appearance=short,
        appearance_scenes=PART_SIZE,
        validation_scenes=2,
        vae_crop_px=32,
    )
    train_mini(work, output, recipe)
    return work, output


@pytest.mark.slow
def test_recipe_makes_a_model_that_loads(tiny_run: tuple[Path, Path]) -> None:
    work, output = tiny_run
    model = UniCon.from_pretrained(output)
    assert set(model.adapters) == {"appearance", "depth", "edge", "pose"}
    assert model.adapters["appearance"].projection == "separate"
    assert model.adapters["pose"].single_step and model.adapters["pose"].estimation_steps == 1
    assert model.working_size(SQUARE) == SQUARE
    assert len(load_cache(work / "scenes-1-32x32").captions) == PART_SIZE
    assert (work / "latents-1-32x32.pt").exists()  # by seed and size: the scenes of another seed are encoded again
    steps = [json.loads(line)["step"] for line in (work / "together" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2]
    assert {path.name for path in (work / "together").glob("*.png")} == {
        f"{kind}-000002.png" for kind in ("depth", "edge", "pose")
    }
    assert (work / "appearance" / "000002.png").exists()


@pytest.mark.slow
def test_training_goes_on_from_a_saved_model(tiny_run: tuple[Path, Path], tmp_path: Path) -> None:
    work, output = tiny_run
    models = read_models(output)
    kept_adapters = ["appearance", "depth", "edge", "pose"]
    install_adapters(models.unet, [*kept_adapters, "fresh"], 4, output)
    save(models, AutoencoderKL.from_pretrained(output / "vae"), kept_adapters, tmp_path)
    for path in sorted(output.rglob("*.safetensors")):
        kept = load_file(tmp_path / path.relative_to(output))
        assert all(torch.equal(tensor, kept[name]) for name, tensor in load_file(path).items())
    assert "_name_or_path" not in json.loads((tmp_path / "unet" / "config.json").read_text())


def test_scenes_with_a_person_come_first_in_a_batch() -> None:
    captions = tuple("a mannequin" if row % 3 == 0 else "a box" for row in range(12))
    scenes = replace(_gradients(), captions=captions)
    latents = SceneLatents({name: torch.arange(12.0).reshape(12, 1, 1, 1) for name in ("image", "depth")}, captions)
    for share, count in ((0.75, 6), (0.0, 0), (1.0, 8)):
        drawn = SceneMaps([scenes], [latents], ["depth"], share).draw_maps(torch.Generator().manual_seed(0), 8)
        assert drawn.captions == ["a mannequin"] * count + ["a box"] * (8 - count)
        assert [captions[int(row)] for row in drawn.images.flatten()] == drawn.captions
        assert drawn.maps["depth"].shape == (8, 3, 64, 64)
    nobody = replace(scenes, captions=("a box",) * 12)
    alone = SceneMaps([nobody], [SceneLatents(latents.latents, nobody.captions)], ["depth"], 0.75)
    assert alone.draw_maps(torch.Generator().manual_seed(0), 3).captions == ["a box"] * 3


def test_poses_are_taught_where_somebody_is_in_view() -> None:
    captions = tuple("a mannequin" if row % 3 == 0 else "a box" for row in range(24))
    maps = {name: torch.arange(24.0).reshape(24, 1, 1, 1) + at for at, name in enumerate(("image", "depth", "pose"))}
    scenes = SceneLatents(maps, captions)
    rows = sorted({*range(0, 24, 3), 0, 8, 16})
    poses = _pairs(scenes, "pose", ["depth"])
    assert poses.images.flatten().tolist() == rows
    assert poses.conditions.flatten().tolist() == [row + 2 for row in rows]
    assert poses.head_targets["depth"].flatten().tolist() == [row + 1 for row in rows]
    assert poses.captions == tuple(captions[row] for row in rows)
    assert _pairs(scenes, "depth", ["pose"]).images is maps["image"]
