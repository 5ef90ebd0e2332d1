"""A small decoder learns what the autoencoder's own decoder makes of maps, and the comparison says how well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.tiny import write_tiny_model
from unicon.autoencoders import decode_scaled, encode_scaled
from unicon.conditions import CONDITIONS
from unicon.decoders import MapDecoder, small_decoder_config
from unicon.files.weights import MAP_DECODER
from unicon.loading import load_module
from unicon.training.decoder import DecoderRecipe, Teacher, distill, load_teacher, train_decoder
from unicon.training.decoder_comparison import compare
from unicon.training.decoder_maps import CodedMaps, code_maps, num_held_out, read_maps
from unicon.training.fit import FitConfig
from unicon.training.photographs import UnreadableImageError

torch.set_num_threads(1)  # tiny models are slower on several threads, much slower beside other work
SIDE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return load_teacher(folder, "cpu")


def ramps(count: int) -> torch.Tensor:
    """Maps (S, 3, side, side) that rise from left to right, by different amounts."""
    rise = torch.linspace(-1, 1, SIDE).expand(1, 3, SIDE, SIDE)
    return torch.cat([rise * (index + 1) / count for index in range(count)])


def recipe(steps: int) -> DecoderRecipe:
    fit = FitConfig(
        steps=steps, learning_rate=1e-2, matrix_learning_rate=5e-2, warmup_steps=2, ema_decay=0.9, log_every=1000
    )
    return DecoderRecipe(fit=fit, finest_width=8, batch_size=4)


def test_maps_are_coded_by_the_autoencoder(teacher: Teacher) -> None:
    coded = code_maps(teacher.vae, ramps(9))
    with torch.no_grad():
        latents = encode_scaled(teacher.vae, ramps(9))
        decoded = decode_scaled(teacher.vae, latents).clamp(-1, 1)
    assert coded.latents.dtype == torch.float16 and coded.latents.shape == (9, 4, SIDE // 2, SIDE // 2)
    assert (coded.latents.float() - latents).abs().max() < 0.01 and (coded.decoded.float() - decoded).abs().max() < 0.01
    training, held_out = coded.training(), coded.held_out()
    assert (len(training.latents), len(held_out.latents)) == (8, 1)
    assert torch.equal(torch.cat([training.decoded, held_out.decoded]), coded.decoded)


def test_training_brings_the_decoder_closer(teacher: Teacher, tmp_path: Path) -> None:
    """From maps that are three channels of their latents, twice as large."""
    latents = torch.rand(8, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    decoded = latents[:, :3].repeat_interleave(2, -1).repeat_interleave(2, -2)
    maps = {kind: CodedMaps(latents, decoded) for kind in ("depth", "edge", "pose")}
    torch.manual_seed(0)
    decoder = MapDecoder(**small_decoder_config(4, 2, 8))
    before = compare(teacher.vae, decoder.eval(), maps)
    train_decoder(decoder, maps, recipe(60), tmp_path)
    after = compare(teacher.vae, decoder, maps)
    assert all(after.difference[kind] < before.difference[kind] / 2 for kind in maps)
    assert after.depth_abs_rel is not None and before.depth_abs_rel is not None
    assert after.depth_abs_rel < before.depth_abs_rel
    assert 0 < after.tflop < after.full_tflop and min(after.seconds, after.full_seconds) > 0
    assert after.lines()[0].startswith("depth: mean difference 0.") and "GFLOP instead of" in after.lines()[-1]


def test_the_same_decoder_has_no_difference(teacher: Teacher) -> None:
    decoder = MapDecoder(**small_decoder_config(4, 2, 8)).eval()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = {kind: CodedMaps(latents, decoder(latents)) for kind in ("depth", "edge")}
    found = compare(teacher.vae, decoder, maps)
    assert max(found.difference.values()) < 1e-6 and found.depth_abs_rel is not None and found.depth_abs_rel < 1e-4
    assert found.edge_f1 == 1.0


def test_what_is_written_is_what_is_compared(teacher: Teacher, folder: Path, tmp_path: Path) -> None:
    found = distill(teacher, {"pose": ramps(8)}, recipe(3), tmp_path / "work", tmp_path / MAP_DECODER)
    stored = load_module(tmp_path / MAP_DECODER, "map_decoder", "cpu", torch.float32)
    again = compare(teacher.vae, stored, {"pose": code_maps(teacher.vae, ramps(8)).held_out()})
    assert again.difference == found.difference and found.depth_abs_rel is None and found.edge_f1 is None
    assert teacher.finest_width == 20 and teacher.native_px == 32


def test_maps_are_read_as_this_project_stores_them(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 20 * 40, dtype=np.float32).reshape(20, 40)
    CONDITIONS["depth"].encode(values).save(tmp_path / "a.png")
    (maps,) = read_maps({"depth": tmp_path}, 20).values()
    assert maps.shape == (1, 3, 20, 20) and torch.equal(maps[0, 0], maps[0, 2])
    assert np.abs(maps[0, 0].float().numpy() - (values[:, 10:30] * 2 - 1)).max() < 1e-3
    Image.new("L", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    with pytest.raises(UnreadableImageError, match=r"b.png cannot be decoded: .* Remove the file"):
        read_maps({"depth": tmp_path}, 20)


def test_how_many_are_held_out() -> None:
    assert [num_held_out(count) for count in (2, 16, 10_000)] == [1, 2, 32]
    with pytest.raises(ValueError, match="at least two maps of a kind, one of them to compare with; got 1"):
        num_held_out(1)
