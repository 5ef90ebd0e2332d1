"""Folders of users with odd names, outputs of earlier runs, and files with names that the program uses itself."""

import shutil
from pathlib import Path

import pytest

from pipelines.dataset.ownership import is_our_png, is_our_text
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, encoded_image, write_folder, write_tar
from tests.support.paths import CASES
from tests.support.run_fake_job import run


def test_a_folder_as_people_have_them(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(CASES / "colons", photos)
    write_folder(photos, {"photo.jpg_large": encoded_image(1), "IMG_1": encoded_image(2)})
    (photos / "gone.jpg").symlink_to("nowhere.jpg")
    theirs = write_folder(
        photos / "depth", {"README.md": b"mine", "report.html": b"mine", "preview.png": encoded_image(3)}
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = ["--input", "~/photos", "--output=~/photos/depth"]
    assert run(command, FakeDepth()) == 0
    said = capsys.readouterr().err
    assert "left out of the input: " in said
    for part in ("dead links: 1", "no extension: 1 (IMG_1)", "extension of no image or shard: 1 (photo.jpg_large)"):
        assert part in said
    assert {row["key"] for row in all_rows(theirs, "data")} == {"a::b.jpg", "plain.jpg"}
    assert [(theirs / name).read_bytes() for name in ("README.md", "report.html")] == [b"mine", b"mine"]
    assert (theirs / "preview.png").read_bytes() == encoded_image(3)
    assert is_our_text((theirs / "report-unicon.html").read_bytes())
    assert is_our_png((theirs / "preview-unicon.png").read_bytes())
    card = (theirs / "README-unicon.md").read_bytes()
    assert is_our_text(card) and b"](preview-unicon.png)" in card
    assert said.count("it stays as it is; the new file is") == 3

    assert run(["--input", "photos", "--output", "again"], FakeDepth()) == 0
    said = capsys.readouterr().err
    assert f"outputs of earlier runs: 1 ({theirs}; to read one, give it alone as --input)" in said
    assert len(all_rows(tmp_path / "again", "data")) == 2
    for name, is_ours in (("README.md", is_our_text), ("report.html", is_our_text), ("preview.png", is_our_png)):
        assert is_ours((tmp_path / "again" / name).read_bytes())
    assert "unicon" not in " ".join(path.name for path in (tmp_path / "again").iterdir())


def test_nothing_succeeded_is_told_by_the_exit_code(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "a.tar", [(f"{number}.jpg", b"junk") for number in range(3)])
    command = ["--input", str(tmp_path / "a.tar"), "--output", str(tmp_path / "out"), "--max-error-rate", "1"]
    assert run(command, FakeDepth()) == 3
    assert "none of the 3 samples succeeded: exit code 3" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "errors").iterdir()}
    assert run(command, FakeDepth()) == 3
    assert "3 done before, 0 to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "errors").iterdir()} == before
