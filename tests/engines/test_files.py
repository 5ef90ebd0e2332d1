"""Weight files of engines: what is damaged, something else, or would run code is refused before it is loaded."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engines.files import check_file


class RunsCode:
    """A pickle of it would call a function when it is read."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("proof-that-code-ran",)


def test_weights_are_accepted(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text("{}")
    for path in tmp_path.iterdir():
        check_file(path)


def test_what_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": RunsCode()}, tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"a\.bin names posix\.mkdir, which would run code"):
        check_file(tmp_path / "a.bin")
    assert not (tmp_path / "proof-that-code-ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1", "a.pth holds no weights"),
        ("a.safetensors", b"<html>", "is a web page"),
        ("config.json", b"{", "config.json"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        check_file(tmp_path / name)


def test_an_old_pickle_is_left_to_the_loader(tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(pickle.dumps(RunsCode(), protocol=2))
    check_file(tmp_path / "old.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "old.pth", weights_only=True)
