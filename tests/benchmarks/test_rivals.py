"""Every rival can be trained for one step, is read back from its files, and makes what it says it makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.rivals.base import read_base, read_vae, train_base
from benchmarks.rivals.data import DEPTH, TrainingScenes
from benchmarks.rivals.field import FIELD
from benchmarks.rivals.joined import JoinedUNets
from benchmarks.rivals.measures import Judge, measure
from benchmarks.rivals.rival import Estimates, Generates, Synthesizes
from benchmarks.rivals.table import BEGIN, END, tables, write_into
from benchmarks.rivals.training import train
from unicon.files.folder import find_folder
from unicon.model import UniCon
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.training.mini.pretrain import SceneLatents
from unicon.training.mini.scene_cache import SceneArrays
from unicon.training.mini.vae import encode_maps

TASKS = {Estimates: "depth", Synthesizes: "image", Generates: "both"}
MAKES = {
    "unicon": set(TASKS),
    "unicon-single-step": set(TASKS),
    "controlnet": {Synthesizes},
    "jointnet": set(TASKS),
    "regression": {Estimates},
    "regression-scratch": {Estimates},
}


@pytest.fixture(scope="module")
def scenes() -> TrainingScenes:
    rendered = [render(sample_scene(41, index)) for index in range(2)]
    arrays = SceneArrays(
        images=np.stack([each.image for each in rendered]),
        inverse_depths=np.stack([np.round(each.inverse_depth * 65535).astype(np.uint16) for each in rendered]),
        edges=np.stack([each.edges for each in rendered]),
        poses=np.stack([each.pose for each in rendered]),
        captions=tuple(each.caption for each in rendered),
    )
    vae = read_vae(find_folder("mini"))
    latents = {kind: encode_maps(vae, arrays, kind) for kind in ("image", DEPTH)}
    return TrainingScenes(arrays, SceneLatents(latents, arrays.captions))


@pytest.fixture(scope="module")
def base_folder(scenes: TrainingScenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_base(tmp_path_factory.mktemp("rivals"), scenes, 0)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(UniCon.from_pretrained("mini", device="cpu"))


VARIANTS = {"unicon-single-step", "regression-scratch"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name for name in FIELD]
)
def test_rivals_are_trained_read_back_and_measured(
    name: str, base_folder: Path, scenes: TrainingScenes, judge: Judge, tmp_path: Path
) -> None:
    base = read_base(base_folder)
    rival = FIELD[name].build(base, scenes, 2)
    assert {task for task in TASKS if isinstance(rival, task)} == MAKES[name]
    frozen = {key: value.clone() for key, value in base.models.unet.named_parameters() if not value.requires_grad}
    untrained = {key: value.detach().clone() for key, value in rival.trained.items()}
    cost = train(rival, tmp_path, 1)
    assert cost["parameters"] == sum(value.numel() for value in untrained.values())
    assert any(not torch.equal(value, untrained[key]) for key, value in rival.trained.items())
    assert all(torch.equal(base.models.unet.get_parameter(key), value) for key, value in frozen.items())
    fresh = FIELD[name].build(read_base(base_folder), scenes, 2)
    fresh.load(tmp_path)
    found = measure(fresh, [render(sample_scene(101, index)) for index in range(2)], judge, steps=1)
    assert {key.split(",")[0] for key in found} == {TASKS[task] for task in MAKES[name]}
    assert all(np.isfinite(value) for group in found.values() for value in group.values())
    written = tables({"base_parameters": 1, "rivals": {name: {"title": name, **cost, **found}}, "references": {}})
    assert written.count(f"| {name} |") == 2


def test_joined_unets_begin_as_two_single_ones(base_folder: Path) -> None:
    unet = read_base(base_folder).models.unet
    joined = JoinedUNets(unet)
    latents, timesteps = torch.randn(4, 8, 16, 16), torch.tensor([0, 500, 999, 3])
    embeds = torch.randn(4, 48, 128)
    with torch.no_grad():
        alone = unet(latents, timesteps, embeds, return_dict=False)[0]
        torch.testing.assert_close(joined(latents, timesteps, embeds), alone, atol=1e-4, rtol=0)
        for convolution in (*joined.to_image, *joined.to_depth):
            torch.nn.init.ones_(convolution.get_parameter("weight"))
        assert not torch.allclose(joined(latents, timesteps, embeds), alone, atol=1e-2)
        apart = joined(latents, timesteps, embeds, exchange=False)
    torch.testing.assert_close(apart, alone, atol=1e-4, rtol=0)


def test_tables_replace_those_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")
    write_into(page, "| new |")
    assert page.read_text() == f"before\n\n{BEGIN}\n\n| new |\n\n{END}\n\nafter\n"
    page.write_text("a page without tables\n")
    with pytest.raises(ValueError, match="has the lines"):
        write_into(page, "| new |")
