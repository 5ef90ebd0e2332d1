"""With a cache a training is the same, and the autoencoder and the text encoder are not called again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.pair_rows import batches_of, draw_rows, tiny_recipe
from unicon.training.adapter import load_adapters, train_adapters
from unicon.training.adapter_files import AdapterTraining
from unicon.training.checkpoints import FolderCheckpoints
from unicon.training.latent_cache import LatentCache
from unicon.training.views import Views

RECIPE = tiny_recipe(steps=3, batch_size=3, random_crop=False)


def trained(training: AdapterTraining, folder: Path, cache: LatentCache | None) -> list[float]:
    """Train, and return the losses."""
    losses: list[float] = []
    source = batches_of(draw_rows(6), training, RECIPE)
    train_adapters(
        training, source, RECIPE, FolderCheckpoints(folder), cache=cache,
        on_metrics=lambda step, values: losses.append(values["loss"]),
    )  # fmt: skip
    return losses


def test_a_cache_changes_nothing(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = load_adapters(tiny_folder, RECIPE, "cpu")
    plain = trained(training, tmp_path / "plain", None)
    first = load_adapters(tiny_folder, RECIPE, "cpu")
    cache = LatentCache(tmp_path / "cache", "weights", first.views)
    assert trained(first, tmp_path / "first", cache) == pytest.approx(plain, abs=1e-5)
    again = load_adapters(tiny_folder, RECIPE, "cpu")
    monkeypatch.setattr(again.vae, "encode", None)
    monkeypatch.setattr(again.models.text_encoder, "forward", None)
    assert trained(again, tmp_path / "again", cache) == pytest.approx(plain, abs=1e-5)
    one, other = training.parameters(), again.parameters()
    step = RECIPE.fit.learning_rate  # AdamW divides by the size of a gradient, so the rounding of tiny ones shows
    assert all(torch.allclose(one[name], other[name], rtol=0, atol=step / 20) for name in one)


def test_mirrored_rows_and_other_sizes_have_latents_of_their_own(tiny_folder: Path, tmp_path: Path) -> None:
    training = load_adapters(tiny_folder, RECIPE, "cpu")
    batch = batches_of(draw_rows(6), training, RECIPE).batch(0, 0, 1)
    cache, calls = LatentCache(tmp_path, "weights", training.views), []

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        return pixels[:, :1, ::2, ::2]

    pixels = {"": torch.rand(4, 3, 8, 8)}
    batch = replace(batch, images=pixels[""], mirrored=(False,) * 4, keys=("a", "b", "c", "d"))
    first = cache.latents(batch, pixels, encode)[""]
    assert torch.equal(cache.latents(batch, pixels, encode)[""], first) and calls == [4]
    cache.latents(replace(batch, mirrored=(True, False, False, False)), pixels, encode)
    cache.latents(replace(batch, images=torch.rand(4, 3, 8, 16)), {"": torch.rand(4, 3, 8, 16)}, encode)
    cache.latents(batch, {"depth": pixels[""]}, encode)
    LatentCache(tmp_path, "other weights", training.views).latents(batch, pixels, encode)
    assert calls == [4, 1, 4, 4, 4]


def test_random_parts_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="random_crop=True, aspect_buckets=True"):
        LatentCache(tmp_path, "weights", Views(resolution_px=32, multiple=4, aspect_buckets=True))
    with pytest.raises(ValueError, match="random_crop=False, aspect_buckets=False"):
        LatentCache(tmp_path, "weights", Views(resolution_px=32, multiple=4, random_crop=False))
