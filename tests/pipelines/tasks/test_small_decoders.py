"""Another autoencoder and the small decoder of maps are other weights, other columns and another configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from pipelines.errors import SettingError
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_cache import local_copy
from pipelines.tasks.model_identity import ModelIdentity, identify_model, resolve_model
from pipelines.tasks.model_options import parse_vae
from tests.support.tiny import write_map_decoder, write_tiny_model, write_tiny_vae
from unicon.files.weights import MAP_DECODER

IMAGE = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    write_map_decoder(folder / MAP_DECODER)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vae(tmp_path_factory.mktemp("vae") / "taesd")


def described(folder: Path, **options: Any) -> UniConModel:
    return UniConModel(model=str(folder), conditions=("depth",), device="cpu", **options)


def identity_of(folder: Path, **options: Any) -> ModelIdentity:
    return identify_model(described(folder, **options))


def test_another_autoencoder_is_another_model(folder: Path, vae: Path) -> None:
    own, other = identity_of(folder), identity_of(folder, vae=str(vae))
    assert other.provenance["vae"] == "taesd" and "vae" not in own.provenance
    assert own.weights_sha256 != other.weights_sha256 and own.config["vae"] != other.config["vae"]
    assert own.limits == other.limits


def test_the_small_decoder_counts_only_where_it_is_used(folder: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(folder, tmp_path / "plain"))
    shutil.rmtree(plain / "decoders")
    own, used, none = identity_of(folder), identity_of(folder, uses_map_decoder=True), identity_of(plain)
    assert (own.weights_sha256, own.config) == (none.weights_sha256, none.config)
    assert own.weights_sha256 != used.weights_sha256 and "map_decoder" in used.config
    assert own.limits is not None and none.limits is not None
    assert own.limits.has_map_decoder and not none.limits.has_map_decoder


def test_actors_load_what_the_driver_found(folder: Path, vae: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(vae, tmp_path / "taesd"))
    model, identity = resolve_model(described(folder, vae=str(copy), uses_map_decoder=True))
    built = model.build()
    assert built.weights_sha256 == identity.weights_sha256 and type(built.vae).__name__ == "AutoencoderTiny"
    assert built.estimate([IMAGE], num_inference_steps=1, map_decoder="small")[0].shape == (32, 32)
    write_tiny_vae(copy, scaling_factor=0.5)
    with pytest.raises(RuntimeError, match="has other weights or configurations than where the command was started"):
        model.build()


def test_the_option_is_named_where_an_autoencoder_does_not_fit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--vae: An autoencoder is a folder .* there is none at"):
        identity_of(folder, vae=str(tmp_path))
    with pytest.raises(SettingError, match="--model, --vae: Latents have the channels that the UNet takes, 4 in"):
        identity_of(folder, vae=str(write_tiny_vae(tmp_path / "other", latent_channels=8)))


def test_names_are_places(vae: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(vae.parent)
    assert [parse_vae(text) for text in (None, "taesd", "s3://b/taesd", "owner/name")] == [
        None, str(vae), "s3://b/taesd", "owner/name"
    ]  # fmt: skip


def test_an_autoencoder_at_a_uri_is_copied_alone(
    folder: Path, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/small-decoders/tiny", recursive=True)
    memory.put(str(vae), "/small-decoders/taesd", recursive=True)
    of_model, alone = (local_copy(f"memory://small-decoders/{name}", "vae") for name in ("tiny", "taesd"))
    assert sorted(path.name for path in Path(of_model).iterdir()) == sorted(
        path.name for path in (folder / "vae").iterdir()
    )
    assert Path(of_model).name == "vae" and Path(alone).name == "taesd"
    there, here = (identity_of(folder, vae=place) for place in ("memory://small-decoders/taesd", str(vae)))
    assert there.weights_sha256 == here.weights_sha256 and there.provenance["vae"] == "taesd"
    whole = Path(local_copy("memory://small-decoders/tiny"))
    assert (whole / MAP_DECODER / "config.json").is_file()
