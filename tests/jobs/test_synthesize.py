"""The synthesize command, with a real Ray and a fake model."""

from pathlib import Path

import pytest

from jobs import _cli, synthesize
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, encoded_image, write_parquet
from tests.support.run_fake_job import run_command


def test_several_images_per_row_exactly_once(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = [encoded_image(number, kind="PNG", mode="L") for number in range(5)]
    columns = {"depth": maps, "edge": [*maps[:4], None], "key": list("abcde"), "caption": ["one", *[None] * 4]}
    path = write_parquet(tmp_path / "in.parquet", columns)
    arguments = ["--input", str(path), "--output", str(tmp_path / "out"), "--images-per-row", "3"]
    arguments += ["--condition", "depth=depth", "--condition", "edge=edge", "--weight", "edge=0.5", "--chunk-size", "4"]
    arguments += ["--prompt", "all", "--coarse", "0.7", "--negative-prompt", "fog"]
    options = synthesize.parse(arguments)
    assert run_command(options, synthesize, FakeDepth(), "depth", "edge") == 0
    assert "15 of 15 samples: 12 rows in data/, 3 in errors/" in capsys.readouterr().err
    rows = all_rows(tmp_path / "out", "data")
    assert sorted(str(row["key"]) for row in rows) == [f"{key}#{copy}" for key in "abcd" for copy in range(3)]
    assert len({row["seed"] for row in rows}) == 12
    assert {row["caption"] for row in rows} == {"one", "all"}
    for row in rows:
        assert (row["weights"], row["negative_prompt"], row["guidance_scale"]) == ("edge=0.5", "fog", 7.5)
        assert row["depth"]["bytes"] == maps["abcde".index(str(row["key"])[0])]  # type: ignore[index]
        assert row["depth_refined"] and row["edge_refined"]
    assert {row["reason"] for row in all_rows(tmp_path / "out", "errors")} == {"column edge is null or empty"}
    assert "images of one row end in #0" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "preview.png").exists()
    assert run_command(options, synthesize, FakeDepth(), "depth", "edge") == 0
    assert "15 done before, 0 to do" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--condition", "depth"], "--condition 'depth': expected NAME=COLUMN, such as --condition depth=column"),
        (["--condition", "depth=a", "--condition", "depth=b"], "depth is given twice"),
        (["--condition", "depth=a", "--coarse", "2"], "2 is out of range; expected a finite number from 0 to 1"),
        (["--condition", "depth=a", "--weight", "pose=1"], "--condition pose is not given, only depth"),
        (["--condition", "depth=a", "--weight", "depth=much"], "'much' is not a number"),
        (["--condition", "nothing=a"], "has the adapters ['appearance', 'depth'"),
        (["--condition", "depth=a", "--adapter", "pose=x"], "write NAME=PATH with a condition of this command (depth)"),
        (["--condition", "depth=a"], "--condition depth=a is not in"),
        ([], "required: --condition"),
    ],
)
def test_wrong_settings(options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_parquet(tmp_path / "in.parquet", {"depth": [b"x"]})
    arguments = ["--input", str(path), "--output", str(tmp_path / "out"), *options]
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: synthesize.main(arguments))
    assert exit_.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
