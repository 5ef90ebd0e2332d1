"""The estimate_depth command in this process, with a real Ray and a fake model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, encoded_image, samples, write_folder, write_parquet, write_tar
from tests.support.run_fake_job import run


def keys(output: Path) -> list[str]:
    return sorted(str(row["key"]) for folder in ("data", "errors") for row in all_rows(output, folder))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[Path]:
    """A run over a tar, a tar.gz, Parquet and a folder with good and bad samples: `in`, `out`."""
    root = tmp_path_factory.mktemp("mixed")
    inputs = root / "in"
    write_tar(
        inputs / "a.tar", [*samples(20), ("bad.jpg", encoded_image()[:400]), ("none.txt", b"x"), ("00003.jpg", b"x")]
    )
    write_tar(inputs / "b.tar.gz", samples(5, first=100), compress=True)
    write_parquet(inputs / "c.parquet", {"image": [encoded_image(n, (20 + n, 30)) for n in range(6)] + [b"junk"]})
    write_folder(
        inputs, {"f/x.png": encoded_image(1, kind="PNG", mode="P"), "f/x.txt": b"words", "f/bomb.jpg": encoded_image()}
    )
    (inputs / "f" / "bomb.jpg").write_bytes(encoded_image(2, (2000, 600)))
    yield root


def arguments(root: Path, *more: str) -> list[str]:
    return [
        *("--input", str(root / "in"), "--output", str(root / "out")),
        *("--chunk-size", "8", "--max-pixels", "1000000", *more),
    ]


def test_every_sample_is_accounted_for(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(mixed), FakeDepth()) == 0
    told = capsys.readouterr().err
    assert "37 samples in 4 shards; 0 done before, 37 to do" in told
    assert "37 of 37 samples: 32 rows in data/, 5 in errors/" in told
    assert "1  read: no image member" in told
    assert len(keys(mixed / "out")) == 37
    reasons = {str(row["key"]): str(row["reason"]) for row in all_rows(mixed / "out", "errors")}
    assert set(reasons) == {"bad", "none", "00003", "c/00000006", "f/bomb.jpg"}
    assert "duplicate key" in reasons["00003"]


def test_the_same_command_again_does_nothing(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (mixed / "out" / "data").iterdir()}
    assert run(arguments(mixed, "--batch-size", "3", "--chunk-size", "5"), FakeDepth()) == 0
    assert "37 done before, 0 to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (mixed / "out" / "data").iterdir()} == before


def test_max_error_rate_decides_the_exit_code(mixed: Path) -> None:
    assert run(arguments(mixed, "--max-error-rate", "0.01"), FakeDepth()) == 3
    assert run(arguments(mixed, "--max-error-rate", "0.2"), FakeDepth()) == 0


def test_the_datasets_library_shows_images(mixed: Path, tmp_path: Path) -> None:
    files = str(mixed / "out" / "data" / "*.parquet")
    rows: Any = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert isinstance(rows.features["image"], datasets.Image)
    assert isinstance(rows.features["depth"], datasets.Image)
    row = next(row for row in rows if row["key"] == "f/x.png")
    assert row["image"].size == row["depth"].size == (48, 32)
    assert row["depth"].mode == "I;16"
    assert row["caption"] == "words"
    errors = str(mixed / "out" / "errors" / "*.parquet")
    assert datasets.load_dataset("parquet", data_files=errors, split="train", cache_dir=str(tmp_path)).num_rows == 5


def test_card_and_preview_lie_beside_the_data(mixed: Path) -> None:
    card = (mixed / "out" / "README.md").read_text()
    assert card.startswith("---\npretty_name:")
    assert "32 rows in `data/`; 5 samples" in card
    assert (mixed / "out" / "preview.png").read_bytes()[:4] == b"\x89PNG"


def test_other_settings_need_another_output(mixed: Path) -> None:
    from pipelines.errors import SettingError

    with pytest.raises(SettingError, match="num_inference_steps was 10 and is now 7"):
        run(arguments(mixed, "--steps", "7"), FakeDepth())


def test_nightly_new_and_changed_shards_are_done(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(mixed / "in" / "b.tar.gz", samples(6, first=200), compress=True)
    write_tar(mixed / "in" / "d.tar", samples(2, first=300))
    assert run(arguments(mixed), FakeDepth()) == 0
    assert "40 samples in 5 shards; 32 done before, 8 to do" in capsys.readouterr().err
    found = keys(mixed / "out")
    assert len(found) == 40
    assert "00205" in found
    assert "00100" not in found


def test_retry_errors_does_the_failed_samples_only(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "in", {f"{n}.jpg": encoded_image(n) for n in range(6)})
    write_tar(
        tmp_path / "in" / "a.tar", [*samples(5), ("bad.jpg", encoded_image()[:400]), ("red.png", encoded_image(9))]
    )
    command = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--chunk-size", "4"]
    assert run(command, FakeDepth(refuses_seeds_of=("00002", "3.jpg"))) == 0
    assert "10 rows in data/, 3 in errors/" in capsys.readouterr().err
    marks = {path.name for path in (tmp_path / "out" / "_chunks" / "done").iterdir()}
    assert run([*command, "--retry-errors"], FakeDepth()) == 0
    told = capsys.readouterr().err
    assert "10 done before, 3 to do" in told
    assert "12 rows in data/, 1 in errors/" in told
    assert sorted(keys(tmp_path / "out")) == sorted(
        [*(f"{n}.jpg" for n in range(6)), *(f"{n:05d}" for n in range(5)), "bad", "red"]
    )
    assert len({path.name for path in (tmp_path / "out" / "_chunks" / "done").iterdir()}) == len(marks)
    assert folder.is_dir()
    assert run(command, FakeDepth()) == 0
    assert "13 done before, 0 to do" in capsys.readouterr().err


def test_rows_do_not_depend_on_how_the_work_was_cut(ray_cluster: None, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(10))
    for name, options in (
        ("1", ["--chunk-size", "3", "--batch-size", "1"]),
        ("2", ["--actors", "2", "--num-gpus-per-actor", "0.5"]),
    ):
        command = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / name), *options]
        assert run(command, FakeDepth()) == 0
    first, second = (sorted(all_rows(tmp_path / name, "data"), key=lambda row: str(row["key"])) for name in "12")
    assert first == second


def test_a_model_that_does_not_load_is_told(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    command = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert run(command, FakeDepth(fail_to_load=True)) == 1
    told = capsys.readouterr().err
    assert "these weights are for another model" in told
    assert "1 chunks are not finished; the same command processes them" in told


def test_the_configuration_is_spelled_out(mixed: Path) -> None:
    claimed = json.loads((mixed / "out" / "_chunks" / "configuration.json").read_text())
    assert claimed["settings"]["num_inference_steps"] == 10
