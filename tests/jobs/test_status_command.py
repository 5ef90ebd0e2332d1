"""The status command after real runs with a fake model: records, formats, --since."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from jobs import _cli, status
from pipelines.errors import SettingError
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import encoded_image, samples, write_tar
from tests.support.run_fake_job import run


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Iterator[Path]:
    """A finished run with WebDataset output over 12 samples, two of which are bad: `in`, `out`."""
    root = tmp_path_factory.mktemp("tars")
    write_tar(root / "in" / "a.tar", [*samples(10), ("bad.jpg", encoded_image()[:400]), ("none.txt", b"x")])
    assert run(arguments(root), FakeDepth()) == 0
    yield root


def arguments(root: Path, *more: str) -> list[str]:
    places = ["--input", str(root / "in"), "--output", str(root / "out")]
    return [*places, "--chunk-size", "5", "--output-format", "webdataset", *more]


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """Return exit code and JSON of the command."""
    capsys.readouterr()
    code = status.main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_run_leaves_its_record(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, "--output", str(tars / "out"), "--input", str(tars / "in"))
    assert (code, found["planned"], found["ok"], found["bad"], found["pending"]) == (0, 12, 10, 2, 0)
    run_ = found["runs"][-1]
    assert (run_["job"], run_["state"], run_["exit_code"], run_["row_format"]) == (
        "estimate_depth", "ended", 0, "webdataset"
    )  # fmt: skip
    assert run_["counts"] == {"planned": 12, "ok": 10, "bad": 2, "missing": 0, "missing_chunks": 0}
    assert run_["plan"] | {"file": ""} == {
        "file": "", "is_whole": True, "shards": 1, "chunks": 3, "samples": 12, "done_before": 0
    }  # fmt: skip
    done = run_["done"]
    assert (done["ok"], done["bad"], done["batch_size"]) == (10, 2, 5)
    assert min(done["seconds"][stage] for stage in ("read", "model", "publish")) > 0
    assert sum(done["errors"].values()) == 2 and "read: no image member" in done["errors"]
    assert run_["settings"]["output_format"] == "webdataset" and run_["cluster"]["cpus"] == 2
    assert run_["versions"]["ray"].startswith("2.")


def test_the_text_fits_people(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--output", str(tars / "out")]) == 0
    text = capsys.readouterr().out
    assert re.search(r"failed +2 +16\.7%", text)
    assert "ended, exit code 0" in text
    assert "1  read: no image member" in text


def test_an_output_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: status.main(["--output", str(tmp_path)]))
    assert exit_.value.code == 2
    assert "has no record of a run" in capsys.readouterr().err


def test_the_tars_are_a_dataset(tars: Path, tmp_path: Path) -> None:
    files = sorted(str(path) for path in (tars / "out" / "data").glob("*.tar"))
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    assert sorted(rows["__key__"]) == [f"{number:05d}" for number in range(10)]
    assert rows[0]["jpg"].size == rows[0]["depth.png"].size == (48, 32)
    assert rows[0]["json"]["caption"].startswith("caption")
    card = (tars / "out" / "README.md").read_text()
    assert 'load_dataset("webdataset", data_files="data/*.tar"' in card and "data_files: errors/*.parquet" in card
    assert (tars / "out" / "preview.png").is_file()


def test_the_tars_are_an_input(tars: Path, tmp_path: Path) -> None:
    again = ["--input", str(tars / "out"), "--output", str(tmp_path / "out")]
    assert run(again, FakeDepth()) == 0
    (path,) = (tmp_path / "out" / "_chunks" / "runs").iterdir()
    assert json.loads(path.read_text())["counts"]["ok"] == 10


def test_one_output_has_one_format(tars: Path) -> None:
    command = ["--input", str(tars / "in"), "--output", str(tars / "out")]
    with pytest.raises(SettingError, match="output_format was 'webdataset' and is now not given"):
        run(command, FakeDepth())
    assert not list((tars / "out" / "data").glob("*.parquet"))


def test_since_does_new_shards_alone(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = time.time() - 3600
    os.utime(tars / "in" / "a.tar", (before, before))  # changed, for whoever looks at it
    assert run(arguments(tars, "--since", "10m"), FakeDepth()) == 0
    assert "0 of 1 shards were written since" in capsys.readouterr().err
    write_tar(tars / "in" / "b.tar", samples(3, first=50))
    assert run(arguments(tars, "--since", "10m"), FakeDepth()) == 0
    text = capsys.readouterr().err
    assert "1 of 2 shards were written since" in text and "3 of 3 samples: 3 rows" in text
    assert "13 rows in `data/`; 2 samples" in (tars / "out" / "README.md").read_text()
    code, found = told(capsys, "--output", str(tars / "out"))
    assert (code, found["planned"], found["ok"]) == (0, 15, 13)
    code, found = told(capsys, "--output", str(tars / "out"), "--input", str(tars / "in"))
    assert (code, [uri[-5:] for uri in found["changes"]["changed"]]) == (1, ["a.tar"])
    assert [run_["options"]["since"] is not None for run_ in found["runs"]] == [True, True, False]


def test_a_run_that_is_refused_on_the_way_is_recorded(ray_cluster: None, tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [])
    with pytest.raises(SettingError, match="no samples"):
        run(arguments(tmp_path), FakeDepth())
    (path,) = (tmp_path / "out" / "_chunks" / "runs").iterdir()
    record = json.loads(path.read_text())
    assert (record["state"], record["exit_code"]) == ("refused", 2) and "no samples" in record["trouble"]


def test_help_teaches_by_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        status.parse(["--help"])
    text = capsys.readouterr().out
    assert "python jobs/status.py --output s3://bucket/depth" in text.split("examples:")[1]
