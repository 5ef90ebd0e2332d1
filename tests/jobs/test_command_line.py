"""Wrong command lines end with exit code 2 and one line with the rule, the value and the cure; no worker starts."""

from pathlib import Path
from types import ModuleType

import pytest

from jobs import _cli, estimate, estimate_depth, generate_pairs, import_adapter, inpaint, synthesize
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import samples, write_folder, write_parquet, write_tar
from tests.support.run_fake_job import run


def told(capsys: pytest.CaptureFixture[str], arguments: list[str], fake: bool = True) -> str:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: run(arguments, FakeDepth()) if fake else estimate_depth.main(arguments))
    assert exit_.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stpes", "3"], "unknown option --stpes. Did you mean --steps?"),
        (["--steps", "0"], "argument --steps: 0 is too small; the minimum is 1"),
        (["--steps", "many"], "'many' is not an integer"),
        (["--max-error-rate", "2"], "2 is out of range; expected a finite number from 0 to 1"),
        (["--num-gpus-per-actor"], "expected one argument"),
        (["--sampler", "magic"], "argument --sampler: invalid choice: 'magic'"),
        (["--chunk-timeout", "0"], "argument --chunk-timeout: 0 is out of range; expected a finite number from 1 to"),
        (["--ensemble", "1"], "argument --ensemble: 1 is too small; the minimum is 2"),
    ],
)
def test_wrong_options(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert message in told(capsys, ["--input", "x", "--output", "y", *options])


def test_a_missing_option_does_not_hide_a_misspelt_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean --output?" in told(capsys, ["--input", "x", "--outptu", "y"])


def test_wrong_inputs_and_outputs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tar = str(write_tar(tmp_path / "a.tar", samples(1)))
    output = str(tmp_path / "out")
    (tmp_path / "file").write_text("not a folder")
    assert "there is nothing at" in told(capsys, ["--input", str(tmp_path / "absent.tar"), "--output", output])
    assert "cannot be written" in told(capsys, ["--input", tar, "--output", str(tmp_path / "file" / "out")])
    assert "memory:// exists in one process" in told(capsys, ["--input", tar, "--output", "memory://out"])
    empty = str(write_tar(tmp_path / "empty.tar", []))
    assert "no samples" in told(capsys, ["--input", empty, "--output", output])
    parquet = str(write_parquet(tmp_path / "p.parquet", {"image": [b"x"]}))
    assert "--key-column 'id' is not in" in told(capsys, ["--input", parquet, "--output", output, "--key-column", "id"])


@pytest.mark.parametrize("job", [estimate, estimate_depth, generate_pairs, import_adapter, inpaint, synthesize])
def test_help_teaches_by_examples(job: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        job.parse(["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert f"python jobs/{job.__name__.removeprefix('jobs.')}.py" in text.split("examples:")[1]
    assert "exit codes:" in text


def test_rows_are_chosen_by_their_columns(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    parquet = str(write_parquet(tmp_path / "p.parquet", {"image": [b"x"], "width": [5]}))
    tar = str(write_tar(tmp_path / "a.tar", samples(1)))
    command = ["--output", str(tmp_path / "out"), "--where", "width>=9"]
    assert "no samples" in told(capsys, ["--input", parquet, *command])
    assert "needs Parquet files" in told(capsys, ["--input", tar, *command])


def test_wrong_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["--input", "x", "--output", "y"]
    write_folder(tmp_path / "model", {"unet/config.json": b"{}"})
    assert "--model" in told(capsys, [*command, "--model", str(tmp_path)], fake=False)
    assert "--model" in told(capsys, [*command, "--model", "nobody/nothing"], fake=False)
    assert "write NAME=PATH with a condition of this command (depth)" in told(
        capsys, [*command, "--adapter", "pose=x.safetensors"], fake=False
    )
    assert "--adapter" in told(
        capsys, [*command, "--model", str(tmp_path / "model"), "--adapter", "absent.safetensors"], fake=False
    )


def test_an_unknown_condition_names_what_the_model_has(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _cli.finish(lambda: estimate.main(["--input", "x", "--output", "y", "--condition", "fog"]))
    text = capsys.readouterr().err
    assert "has the adapters ['appearance', 'depth'" in text
    assert "none called fog" in text
    assert "--adapter fog=PATH" in text
