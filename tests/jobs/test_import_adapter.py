"""The import_adapter command: conversion in both directions, and what it rejects."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jobs import _cli, import_adapter
from tests.support.paths import CASES, GOLDEN, MINI
from unicon.adapters.config import read_config

ADAPTERS = CASES / "adapters"
MINI_DEPTH = MINI / "adapters" / "depth.safetensors"


def told(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 0) -> str:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: import_adapter.main(arguments))
    printed = capsys.readouterr()
    assert exit_.value.code == code, printed.err
    assert "Traceback" not in printed.err
    return printed.out if code == 0 else printed.err


@pytest.mark.parametrize("name", ["depth", "id"])
def test_there_and_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, base = GOLDEN / "checkpoints" / name, GOLDEN.as_posix()
    ours, theirs, again = tmp_path / "a.safetensors", tmp_path / name, tmp_path / "b.safetensors"
    text = told(capsys, [str(source), "--base", base, "--output", str(ours)])
    assert f"kind        {name if name == 'depth' else 'id'}" in text
    assert f"projection  {'fused' if name == 'depth' else 'separate'}" in text
    assert f"{'with' if name == 'depth' else 'without'} condition adapter" in text
    assert str(ours) in text
    told(capsys, [str(ours), "--to", "published", "--output", str(theirs)])
    told(capsys, [str(theirs), "--base", base, "--output", str(again)])
    assert read_config(ours) == read_config(again)
    first, second = load_file(ours), load_file(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert read_config(ours)[0].name == name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.safetensors", "b.safetensors", name])


def test_an_adapter_of_ours_can_be_renamed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, [str(MINI_DEPTH), "--output", str(tmp_path / "new" / "a.safetensors"), "--name", "mine"])
    assert "kind        depth, called mine" in text
    config, _ = read_config(tmp_path / "new" / "a.safetensors")
    assert config == replace(read_config(MINI_DEPTH)[0], name="mine")
    assert load_file(MINI_DEPTH).keys() == load_file(tmp_path / "new" / "a.safetensors").keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([str(GOLDEN / "checkpoints" / "depth")], "--base chooses another"),
        ([str(GOLDEN / "checkpoints" / "depth"), "--name", "fog"], "'fog' is not one of depth, edge"),
        ([str(GOLDEN / "checkpoints")], "in it have. Name the very folder"),
        ([str(MINI_DEPTH), "--base", "mini"], "--base applies to official adapters"),
        (["./absent"], "there is nothing at './absent'"),
        (["nobody/nothing"], "neither here nor in the hub cache"),
        ([str(ADAPTERS / "kohya.safetensors")], "is a LoRA (kohya). Fuse it into the base with --lora"),
        ([str(ADAPTERS / "lcm")], "is the folder of a LoRA"),
        ([str(ADAPTERS / "lfs.safetensors")], "is a Git LFS pointer"),
        ([str(GOLDEN / "checkpoints" / "depth" / "model.pth")], "is a part of one. Give its folder"),
        ([str(GOLDEN / "checkpoints" / "depth"), "--base", "nobody/nothing"], "neither here nor in the hub cache"),
    ],
)
def test_refusals(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in told(capsys, [*arguments, "--output", str(tmp_path / "a.safetensors")], code=2)
    assert list(tmp_path.iterdir()) == []


def test_of_a_repository_the_named_kind_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, output = GOLDEN.as_posix(), tmp_path / "a.safetensors"
    told(capsys, [str(GOLDEN / "checkpoints"), "--name", "pose", "--base", base, "--output", str(output)])
    assert read_config(output)[0].kind == "pose"


@pytest.mark.parametrize("damage", [b"version https://git-lfs.github.com/spec/v1\n", b"", b"\x80\x02}q\x00(noise"])
def test_a_damaged_pickle_is_a_wrong_setting(damage: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Path(shutil.copytree(GOLDEN / "checkpoints" / "depth", tmp_path / "depth"))
    (source / "model.pth").write_bytes(damage)
    arguments = [str(source), "--base", GOLDEN.as_posix(), "--output", str(tmp_path / "a.safetensors")]
    assert "model.pth" in told(capsys, arguments, code=2)


def test_nothing_is_overwritten_by_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    assert "is an existing folder" in told(
        capsys, [str(MINI_DEPTH), "--to", "published", "--output", str(tmp_path / "out")], 2
    )
