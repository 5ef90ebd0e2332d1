"""`--model`, `--adapter` and `--lora` as they are typed."""

from pathlib import Path

import pytest

from pipelines.errors import SettingError
from pipelines.tasks.model_options import parse_adapters, parse_loras, parse_model


@pytest.mark.parametrize(
    ("text", "place", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        ("s3://bucket/a.safetensors", "s3://bucket/a.safetensors", 1.0),
        ("s3://bucket/a.safetensors:.5", "s3://bucket/a.safetensors", 0.5),
        ("odd:2", "odd:2", 1.0),
    ],
)
def test_loras_of_a_command(
    text: str, place: str, scale: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:2").write_bytes(b"")
    assert parse_loras([text]) == ((place if "://" in place else str(tmp_path / place), scale),)


@pytest.mark.parametrize("text", ["a.safetensors:nan", "a.safetensors:inf", "a.safetensors:1e30", "a.safetensors:x"])
def test_scales_that_are_none(text: str) -> None:
    with pytest.raises(SettingError, match="--lora"):
        parse_loras([text])


def test_adapters_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert parse_adapters(["owner/name"], ["depth"]) == {"depth": "owner/name"}
    assert parse_adapters(["depth=~/a"], ["depth", "pose"]) == {"depth": str(tmp_path / "home" / "a")}
    assert parse_adapters(["pose=./a/b"], ["depth", "pose"]) == {"pose": str(tmp_path / "a" / "b")}
    for texts in (["a"], ["fog=a"], ["depth="], ["depth=a", "depth=b"]):
        with pytest.raises(SettingError, match="--adapter"):
            parse_adapters(texts, ["depth", "pose"])


def test_models_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()  # an output, say: the embedded model is meant
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_model("mini") == ("mini", None)
    assert parse_model("owner/name") == (str(tmp_path / "owner" / "name"), None)
    assert parse_model("owner/other@v1") == ("owner/other", "v1")
    assert parse_model("~/owner") == (str(tmp_path / "owner"), None)
    assert parse_model("s3://bucket/model") == ("s3://bucket/model", None)
