"""Local copies of models and adapters at URIs."""

import json
from pathlib import Path

import fsspec
import pytest

from pipelines.errors import SettingError
from pipelines.tasks import model_cache
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_cache import local_copy
from pipelines.tasks.model_identity import identify_model
from pipelines.tasks.model_options import parse_adapters
from tests.support.paths import CASES, GOLDEN
from tests.support.tiny import write_tiny_model

BUCKET = "memory://models"


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny model in a store, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if fsspec.filesystem("memory").exists("/models"):
        fsspec.filesystem("memory").rm("/models", recursive=True)
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


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_loaded_is_copied(uri: str) -> None:
    memory = fsspec.filesystem("memory")
    before = names_in(Path(local_copy(uri)))
    for name in ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors",
                 "safety_checker/model.safetensors", "v1-5-pruned-emaonly.safetensors", "README.md"):  # fmt: skip
        memory.pipe_file(f"/models/tiny/{name}", b"other weights")
    copy = Path(local_copy(uri))
    assert names_in(copy) == before
    assert {"unet/config.json", "unet/diffusion_pytorch_model.safetensors", "adapters/depth.safetensors"} <= before
    weights = memory.cat_file("/models/tiny/unet/diffusion_pytorch_model.safetensors")
    memory.pipe_file("/models/tiny/unet/diffusion_pytorch_model.fp16.safetensors", weights)
    memory.rm("/models/tiny/unet/diffusion_pytorch_model.safetensors")
    half = names_in(Path(local_copy(uri)))
    assert half - before == {"unet/diffusion_pytorch_model.fp16.safetensors"}
    assert identify_model(UniConModel(model=uri, conditions=("depth",)))


def test_of_a_repository_of_adapters_the_condition_s_is_copied(uri: str) -> None:
    memory = fsspec.filesystem("memory")
    golden = GOLDEN / "checkpoints"
    for name in ("depth", "pose"):
        memory.put(str(golden / name), f"/models/unicon/{name}", recursive=True)
    memory.pipe_file("/models/unicon/depth/notes.txt", b"notes")
    depth, pose = (Path(local_copy(f"{BUCKET}/unicon", kind)) for kind in ("depth", "pose"))
    assert (depth.name, pose.name) == ("depth", "pose")
    assert names_in(depth) == names_in(golden / "depth")
    assert names_in(pose) == names_in(golden / "pose")
    assert names_in(Path(local_copy(f"{BUCKET}/unicon/depth"))) == names_in(golden / "depth")


def test_another_family_is_refused_before_its_weights_are_copied(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    copy = model_cache._copy
    monkeypatch.setattr(model_cache, "_copy", lambda info, target: copied.append(info.uri) or copy(info, target))
    memory = fsspec.filesystem("memory")
    config = json.loads(memory.cat_file("/models/tiny/unet/config.json"))
    memory.pipe_file(
        "/models/tiny/unet/config.json", json.dumps({**config, "addition_embed_type": "text_time"}).encode()
    )
    with pytest.raises(SettingError, match="--model: .*is Stable Diffusion XL"):
        identify_model(UniConModel(model=uri, conditions=("depth",)))
    assert copied and all(name.endswith(".json") for name in copied)
    memory.pipe_file("/models/flux/model_index.json", b"{}")
    memory.pipe_file("/models/flux/transformer/model.safetensors", b"")
    with pytest.raises(SettingError, match=r"has no unet/config\.json, but transformer"):
        identify_model(UniConModel(model=f"{BUCKET}/flux", conditions=("depth",)))
    with pytest.raises(SettingError, match="single file"):
        identify_model(UniConModel(model=f"{BUCKET}/sd.ckpt", conditions=("depth",)))


def test_a_lora_at_a_uri(uri: str) -> None:
    kohya = CASES / "adapters" / "kohya.safetensors"
    fsspec.filesystem("memory").put(str(kohya), "/models/kohya.safetensors")
    with pytest.raises(SettingError, match="--lora: A LoRA"):  # it is read, and is made for another base model
        identify_model(UniConModel(model=uri, conditions=("depth",), loras=((f"{BUCKET}/kohya.safetensors", 1.0),)))


def test_adapters_that_lie_deeper_are_found_and_a_folder_above_is_not_copied(uri: str) -> None:
    memory = fsspec.filesystem("memory")
    golden = GOLDEN / "checkpoints"
    memory.put(str(golden / "depth"), "/models/unicon/checkpoints/depth", recursive=True)
    assert names_in(Path(local_copy(f"{BUCKET}/unicon", "depth"))) == names_in(golden / "depth")
    with pytest.raises(SettingError, match="folders that may: tiny, unicon. Name that folder"):
        identify_model(UniConModel(model=BUCKET, conditions=("depth",)))
