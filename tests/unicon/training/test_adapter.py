"""Adapters are trained together, start from others, and are written in both formats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.support.pair_rows import batches_of, draw_row, draw_rows, tiny_recipe
from tests.support.tiny import tiny_unet
from unicon import UniCon
from unicon.adapters.checkpoint import save_adapter
from unicon.adapters.config import AdapterConfig, read_config
from unicon.adapters.official import read_official
from unicon.adapters.unet import add_adapter
from unicon.files.adapters import OFFICIAL_FILES
from unicon.training.adapter import captions_cut, load_adapters, train_adapters
from unicon.training.adapter_files import write_adapters
from unicon.training.checkpoints import FolderCheckpoints
from unicon.training.recipe import AdapterRecipe, TrainedAdapter


def starting_from(path: Path, **changes) -> AdapterRecipe:
    """Return a recipe whose depth adapter starts from a file."""
    recipe = tiny_recipe(["depth"])
    trained = replace(recipe.adapters[0], start_from=path)
    return replace(recipe, adapters=(replace(trained, config=replace(trained.config, **changes)),))


@pytest.fixture(scope="module")
def written(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training of two adapters wrote, the depth adapter from the one of the model folder."""
    folder = tmp_path_factory.mktemp("adapters")
    both = tiny_recipe(steps=3, single_step_steps=1)
    start = starting_from(tiny_folder / "adapters" / "depth.safetensors").adapters[0]
    recipe = replace(both, adapters=(both.adapters[0], start))
    training = load_adapters(tiny_folder, recipe, "cpu")
    seen: list[tuple[int, set[str], set[str]]] = []
    train_adapters(
        training, batches_of(draw_rows(8), training, recipe), recipe, FolderCheckpoints(folder / "state"),
        held_out=[draw_row(100), draw_row(101)],
        on_validation=lambda step, numbers, sheets: seen.append((step, set(numbers), set(sheets))),
    )  # fmt: skip
    names = {"canny_difference", "canny_f1", "depth_difference", "depth_correlation"}
    assert seen == [(2, names, {"canny", "depth"}), (3, names, {"canny", "depth"})]
    write_adapters(training, folder / "adapters", "# A card")
    return folder / "adapters"


def test_adapters_are_written_in_both_formats(written: Path) -> None:
    files = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    official = {f"official/{name}/{part}" for name in ("canny", "depth") for part in OFFICIAL_FILES}
    assert files == {"README.md", "canny.safetensors", "depth.safetensors", *official}
    for name in ("canny", "depth"):
        tensors = load_file(written / f"{name}.safetensors")
        _, again = read_official(written / "official" / name, name)
        assert tensors.keys() == again.keys() and all(torch.equal(tensors[key], again[key]) for key in tensors)
        assert any(tensor.any() for key, tensor in tensors.items() if "joint_out" in key)
    config, _ = read_config(written / "canny.safetensors")
    assert (config.name, config.kind, config.trigger, config.single_step) == ("canny", "edge", "edge_map, ", True)


def test_written_adapters_estimate(tiny_folder: Path, written: Path) -> None:
    adapters = {"canny": written / "canny.safetensors", "depth": written / "depth.safetensors"}
    model = UniCon.from_pretrained(tiny_folder, adapters=adapters, device="cpu")
    (edges,) = model.estimate([draw_row(0).image], "canny")
    assert edges.shape == (40, 40) and np.isfinite(edges).all()


def test_a_training_starts_from_an_adapter(tiny_folder: Path, written: Path) -> None:
    """In either format."""
    for path in (written / "depth.safetensors", written / "official" / "depth"):
        training = load_adapters(tiny_folder, starting_from(path), "cpu")
        expected = load_file(written / "depth.safetensors")
        found = training.parameters()
        assert all(torch.equal(found[f"depth.{key}"], value.float()) for key, value in expected.items())
        assert all(value.dtype == torch.float32 and value.requires_grad for value in found.values())


def test_an_adapter_of_another_form_or_base_is_refused(tiny_folder: Path, written: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"keeps the form of the adapter it starts from; .* {'rank': \(4, 8\)"):
        load_adapters(tiny_folder, starting_from(written / "depth.safetensors", rank=8, alpha=4.0), "cpu")
    other = tiny_unet(use_linear_projection=False)
    add_adapter(other, AdapterConfig(name="depth", rank=4))
    save_adapter(other, "depth", tmp_path / "depth.safetensors")
    with pytest.raises(ValueError, match="starts from an adapter of the same base model"):
        load_adapters(tiny_folder, starting_from(tmp_path / "depth.safetensors"), "cpu")


def test_an_adapter_without_an_official_form_is_written_once(tiny_folder: Path, tmp_path: Path) -> None:
    config = AdapterConfig(name="depth", rank=4, alpha=8)
    recipe = replace(tiny_recipe(["depth"]), adapters=(TrainedAdapter(config=config),))
    files = write_adapters(load_adapters(tiny_folder, recipe, "cpu"), tmp_path)
    assert [path.name for path in files] == ["depth.safetensors"]


def test_captions_that_are_cut_are_counted(tiny_folder: Path) -> None:
    """The trigger texts alone are as long as the tiny text encoder takes."""
    training = load_adapters(tiny_folder, tiny_recipe(["depth"]), "cpu")
    training = replace(training, configs={"own": AdapterConfig(name="own", trigger="a, ")})
    assert captions_cut(training, ["b", "c" * 30, "d" * 40]) == {"own": 2} and captions_cut(training, ["b"]) == {}
