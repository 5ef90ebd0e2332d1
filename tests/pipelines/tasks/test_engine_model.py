"""The description of an engine that travels to the actors: found, checked and hashed on the driver."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from engines import parse_engine
from pipelines.errors import SettingError
from pipelines.tasks.condition_columns import encoding_notes
from pipelines.tasks.engine_model import EngineModel, resolve_engine
from tests.support.tiny import write_tiny_model
from tests.support.tiny_engines import write_controlnet, write_depth_model


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_depth_model(tmp_path_factory.mktemp("depth") / "tiny-depth")


def estimate(model: EngineModel) -> np.ndarray:
    built = pickle.loads(pickle.dumps(model.with_device("cpu", 2).with_work(5))).build()
    assert built.weights_sha256 == model.weights_sha256
    return built.estimate([Image.linear_gradient("L").resize((64, 48)).convert("RGB")], "x", seeds=[0])[0]


def test_an_engine_without_weights() -> None:
    model, identity = resolve_engine(parse_engine("controlnet-aux:canny", ["low_threshold=50"]))
    assert identity.provenance == {
        "engine": "controlnet-aux:canny",
        "engine_options": "low_threshold=50",
        "engine_package": parse_engine("controlnet-aux:canny").package,
    }
    assert encoding_notes(identity.conditions)["canny_kind"] == "edge" and identity.config == {}
    assert estimate(model).shape == (48, 64)
    renamed, large = (
        resolve_engine(parse_engine("controlnet-aux:canny", [option]), condition="lines")[1]
        for option in ("low_threshold=9", "detect_px=1024")
    )
    assert (renamed.area_px, large.area_px) == (0, 4 * 1024**2)
    assert (renamed.conditions[0].name, renamed.conditions[0].kind) == ("lines", "edge")


def test_the_hash_is_that_of_the_files_wherever_they_are(
    depth_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(depth_folder.parent)
    here, identity = resolve_engine(parse_engine("transformers:./tiny-depth"), dtype="float32")
    assert identity.provenance["engine"] == "transformers:tiny-depth" and len(identity.weights_sha256) == 64
    fsspec.filesystem("memory").put(str(depth_folder), "/engines/tiny-depth", recursive=True)
    fsspec.filesystem("memory").pipe_file("/engines/tiny-depth/training_args.bin", b"unsafe")
    there, other = resolve_engine(parse_engine("transformers:memory://engines/tiny-depth"))
    assert other.weights_sha256 == identity.weights_sha256
    assert not list((tmp_path / "cache").rglob("*.bin"))
    monkeypatch.chdir(tmp_path)
    assert here.spec.weights == str(depth_folder)
    np.testing.assert_array_equal(estimate(here), estimate(there))


def test_every_node_loads_the_commit_of_the_hub_that_the_driver_found(
    depth_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, root = "a" * 40, tmp_path / "models--owner--tiny-depth"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shutil.copytree(depth_folder, root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    model, identity = resolve_engine(parse_engine("transformers:owner/tiny-depth"))
    assert identity.provenance["engine"] == "transformers:owner/tiny-depth"
    assert identity.provenance["engine_revision"] == commit
    assert model.spec.weights == f"owner/tiny-depth@{commit}"
    assert estimate(model).shape == (48, 64)


def test_files_that_differ_from_those_of_the_driver_are_refused(tmp_path: Path) -> None:
    folder = write_depth_model(tmp_path / "tiny-depth", "dpt")
    model, identity = resolve_engine(parse_engine(f"transformers:{folder}"))
    weights = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(RuntimeError, match="other weights or configurations than where the command was started"):
        model.build()
    assert resolve_engine(parse_engine(f"transformers:{folder}"))[1].weights_sha256 != identity.weights_sha256


def test_a_controlnet_with_its_base(tmp_path: Path) -> None:
    net, base = write_controlnet(tmp_path / "net"), write_tiny_model(tmp_path / "base")
    spec = parse_engine(f"controlnet:{net}", base=str(base))
    model, identity = resolve_engine(spec, condition="depth")
    assert identity.provenance["model"] == "base" and "scheduler" in identity.config
    assert identity.conditions[0].kind == "depth"
    assert model.with_device("cpu", 1).build().weights_sha256 == identity.weights_sha256
    with pytest.raises(SettingError, match="whose kind is one of depth, edge, .*; got 'sketch'.*kind=KIND"):
        resolve_engine(spec, condition="sketch")
    named = resolve_engine(replace(spec, options={"kind": "edge"}), condition="sketch")[1]
    assert (named.conditions[0].name, named.conditions[0].kind) == ("sketch", "edge")
    with pytest.raises(SettingError, match="--engine, --model: a ControlNet has the shape of its base"):
        resolve_engine(replace(spec, base="mini"), condition="depth")


@pytest.mark.parametrize(
    ("text", "dtype", "message"),
    [
        ("controlnet-aux:canny", "float16", "--dtype float16: the engine controlnet-aux:canny has its own data type"),
        ("controlnet-aux:dwpose", None, "packages that are not installed here: mmcv"),
        ("controlnet-aux:hed", None, "'lllyasviel/Annotators' is neither here nor in the hub cache"),
        ("transformers:/nowhere/model", None, "there is no folder '/nowhere/model'"),
        ("transformers:nobody/nothing", None, "'nobody/nothing' is neither here nor in the hub cache"),
    ],
)
def test_what_is_missing_is_said_before_work_starts(text: str, dtype: str | None, message: str) -> None:
    spec = parse_engine(text, weights="/x" if "dwpose" in text else None)
    with pytest.raises(SettingError, match=message):
        resolve_engine(spec, dtype=dtype)


def test_weights_that_would_run_code_are_refused_on_the_driver(tmp_path: Path) -> None:
    torch.save({"weight": Path.mkdir}, tmp_path / "5_model.pth")
    with pytest.raises(SettingError, match="which would run code"):
        resolve_engine(parse_engine("controlnet-aux:teed", weights=str(tmp_path)))
