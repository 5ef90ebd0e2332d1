"""Models and adapters at URIs."""

from pathlib import Path

import fsspec
import pytest

from pipelines.errors import SettingError
from pipelines.model_files import local_copy
from pipelines.predictors import UniConModel, identify_model, parse_adapters
from tests.tiny import write_tiny_model

BUCKET = "memory://models"


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny model in a store, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = write_tiny_model(tmp_path / "tiny")
    (local / "unet" / "weights.ckpt").write_bytes(b"unsafe")
    fsspec.filesystem("memory").put(str(local), "/models/tiny", recursive=True)
    return f"{BUCKET}/tiny"


def test_a_model_at_a_uri_is_the_same_model(uri: str, tmp_path: Path) -> None:
    adapter = parse_adapters([f"{uri}/adapters/depth.safetensors"], ["depth"])
    there = UniConModel(model=uri, conditions=("depth",), adapters=adapter, device="cpu")
    here = UniConModel(model=str(tmp_path / "tiny"), conditions=("depth",), device="cpu")
    assert identify_model(there).weights_sha256 == identify_model(here).weights_sha256
    assert identify_model(there).model == uri
    assert there.build().weights_sha256 == here.build().weights_sha256


def test_a_copy_is_made_once_for_each_version_and_holds_no_other_formats(uri: str) -> None:
    first = Path(local_copy(uri))
    assert not list(first.rglob("*.ckpt"))
    stamp = (first / "model_index.json").stat().st_mtime_ns
    assert (Path(local_copy(uri)) / "model_index.json").stat().st_mtime_ns == stamp
    fsspec.filesystem("memory").pipe_file("/models/tiny/model_index.json", b"{ }")
    assert local_copy(uri) != str(first)


def test_nothing_at_a_uri_is_a_wrong_setting(uri: str) -> None:
    with pytest.raises(SettingError, match="holds no model"):
        identify_model(UniConModel(model=f"{BUCKET}/absent", conditions=("depth",)))


@pytest.mark.parametrize("place", ["mini", "owner/name", "/models/sd15"])
def test_other_places_come_as_they_are(place: str) -> None:
    assert local_copy(place) == place
