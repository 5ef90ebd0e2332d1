"""Models, adapters and LoRAs on the hub, taken from its cache without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.errors import SettingError
from pipelines.tasks.model import UniConModel
from pipelines.tasks.model_identity import resolve_model
from pipelines.tasks.model_options import parse_adapters, parse_loras, parse_model
from tests.support.paths import CASES
from tests.support.tiny import add_random_adapter, tiny_unet
from unicon import UniCon
from unicon.adapters.config import AdapterConfig
from unicon.adapters.official import save_official
from unicon.files.adapters import find_adapter
from unicon.files.folder import find_folder
from unicon.files.hub import HubId, commit_of, is_local, parse_hub_id
from unicon.files.weights import files_to_load

FIRST, SECOND = "1" * 40, "2" * 40


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lixirui142/unicon", HubId("lixirui142/unicon", "", None)),
        ("lixirui142/unicon/depth", HubId("lixirui142/unicon", "depth", None)),
        ("owner/name/a/b.safetensors@v1.0", HubId("owner/name", "a/b.safetensors", "v1.0")),
        ("owner/name@refs/pr/3", HubId("owner/name", "", "refs/pr/3")),
        ("mini", None),
        ("./owner/name", None),
        ("../owner/name", None),
        ("~/owner/name", None),
        ("/owner/name", None),
        ("s3://owner/name", None),
        ("", None),
    ],
)
def test_names(text: str, name: HubId | None) -> None:
    assert parse_hub_id(text) == name
    if name is not None:
        assert parse_hub_id(name.text) == name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def snapshot(cache: Path, repository: str, commit: str, branch: str = "main") -> Path:
    """An empty snapshot as huggingface_hub keeps it."""
    root = cache / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    return root / "snapshots" / commit


def publish(folder: Path, name: str, seed: int = 1) -> None:
    unet = tiny_unet()
    add_random_adapter(unet, AdapterConfig(name=name, rank=4), seed=seed)
    save_official(unet, name, folder / name)


@pytest.fixture
def repository(cache: Path) -> Path:
    """A repository of official adapters for two conditions."""
    root = snapshot(cache, "lixirui142/unicon", FIRST)
    publish(root, "depth")
    publish(root, "edge", seed=2)
    return root


def described(tiny_folder: Path, *adapters: str, condition: str = "depth") -> UniConModel:
    given = parse_adapters(adapters, [condition])
    return UniConModel(model=str(tiny_folder), conditions=(condition,), adapters=given, device="cpu")


def test_a_repository_gives_the_folder_of_the_condition(repository: Path, tiny_folder: Path) -> None:
    for condition in ("depth", "edge"):
        whole, named, local = (
            resolve_model(described(tiny_folder, place, condition=condition))
            for place in ("lixirui142/unicon", f"lixirui142/unicon/{condition}", str(repository / condition))
        )
        assert whole[1].weights_sha256 == named[1].weights_sha256 == local[1].weights_sha256
        assert whole[1].adapter == named[1].adapter == f"lixirui142/unicon/{condition}"
        assert whole[1].conditions[0].kind == condition
    model = UniCon.from_pretrained(tiny_folder, adapters={"edge": "lixirui142/unicon"}, device="cpu")
    assert list(model.adapters) == ["edge"]


def test_every_node_loads_the_commit_that_the_driver_found(repository: Path, cache: Path, tiny_folder: Path) -> None:
    model, identity = resolve_model(described(tiny_folder, "lixirui142/unicon"))
    assert model.adapters == {"depth": f"lixirui142/unicon/depth@{FIRST}"}
    assert identity.provenance["adapter_revision"] == FIRST
    publish(snapshot(cache, "lixirui142/unicon", SECOND), "depth", seed=5)  # the branch moves on
    assert find_adapter("lixirui142/unicon", "depth").parent.name == SECOND
    assert model.build().weights_sha256 == identity.weights_sha256
    assert resolve_model(described(tiny_folder, f"lixirui142/unicon@{FIRST}"))[1] == identity
    assert resolve_model(described(tiny_folder, "lixirui142/unicon"))[1].weights_sha256 != identity.weights_sha256


def test_what_is_there_is_said(repository: Path, tiny_folder: Path) -> None:
    with pytest.raises(SettingError, match=r"'pose', but \['depth', 'edge'\] in it have"):
        resolve_model(described(tiny_folder, "lixirui142/unicon", condition="pose"))
    with pytest.raises(SettingError, match="--adapter: An official adapter is a folder with model.pth"):
        resolve_model(described(tiny_folder, "lixirui142/unicon/pose", condition="pose"))
    with pytest.raises(SettingError, match="neither here nor in the hub cache.*HF_HUB_OFFLINE"):
        resolve_model(described(tiny_folder, "nobody/nothing"))


def test_a_path_that_exists_wins(
    repository: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    publish(tmp_path / "lixirui142" / "unicon", "depth", seed=9)
    assert is_local("lixirui142/unicon")
    given = parse_adapters(["lixirui142/unicon/depth"], ["depth"])
    assert given == {"depth": str(tmp_path / "lixirui142" / "unicon" / "depth")}
    assert find_adapter("lixirui142/unicon", "depth") == Path("lixirui142/unicon/depth")


def test_a_model_of_the_hub_at_a_revision(cache: Path, tiny_folder: Path) -> None:
    for commit, branch in ((FIRST, "main"), (SECOND, "v2")):
        place = snapshot(cache, "owner/model", commit, branch)
        shutil.copytree(tiny_folder, place, dirs_exist_ok=True)
    assert parse_model("owner/model@v2") == ("owner/model", "v2")
    name, revision = parse_model("owner/model@v2")
    model, identity = resolve_model(UniConModel(model=name, revision=revision, conditions=("depth",), device="cpu"))
    assert (model.model, model.revision) == ("owner/model", SECOND)
    assert (identity.model, identity.provenance["model_revision"]) == ("owner/model", SECOND)
    plain = resolve_model(UniConModel(model="owner/model", conditions=("depth",)))
    assert plain[0].revision == FIRST
    assert "model_revision" not in plain[1].provenance  # outputs of earlier versions have no such column
    assert plain[1].weights_sha256 == identity.weights_sha256
    assert find_folder("owner/model@v2").name == SECOND == commit_of(find_folder("owner/model", "v2"))
    described = UniCon.from_pretrained("owner/model@v2", device="cpu").describe()
    assert (described["model"], described["revision"]) == ("owner/model@v2", SECOND)


def test_loras_of_the_hub(cache: Path) -> None:
    place = snapshot(cache, "owner/lora", FIRST)
    shutil.copy(CASES / "adapters" / "kohya.safetensors", place / "lora.safetensors")
    (place / "pytorch_lora_weights.safetensors").write_bytes(b"")
    from unicon.files.loras import find_lora

    assert find_lora("owner/lora/lora.safetensors") == place / "lora.safetensors"
    assert find_lora("owner/lora") == place / "pytorch_lora_weights.safetensors"
    assert parse_loras(["owner/lora:0.5", "owner/lora/lora.safetensors@main"]) == (
        ("owner/lora", 0.5), ("owner/lora/lora.safetensors@main", 1.0),
    )  # fmt: skip


def test_only_what_is_loaded_is_fetched(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    listed = [
        "README.md", "model_index.json", "v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.bin", "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/config.json", "text_encoder/model.safetensors",
        "safety_checker/config.json", "safety_checker/model.safetensors", "feature_extractor/preprocessor_config.json",
        "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    ]  # fmt: skip
    wanted = {
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/config.json", "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    }  # fmt: skip
    assert files_to_load(listed) == wanted
    asked: list[list[str]] = []
    monkeypatch.setattr("unicon.files.folder.files_in_hub", lambda name: listed)
    monkeypatch.setattr(
        "unicon.files.hub.snapshot_download",
        lambda repository, *, allow_patterns: asked.append(allow_patterns) or str(tiny_folder),
    )
    assert find_folder("owner/model") == tiny_folder
    assert set(asked[0]) == wanted
