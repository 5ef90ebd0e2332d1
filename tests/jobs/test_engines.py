"""Jobs with engines other than UniCon: real engines in the real data plane, killed, resumed, and with bad input."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import _cli, _engines, estimate, synthesize
from pipelines.runs.environment import Environment
from pipelines.runs.runner import run_job
from pipelines.samples import Chunk
from pipelines.storage.store import FILES
from tests.support.in_process import During, InProcess, KilledError
from tests.support.inputs import all_rows, encoded_image, samples, write_parquet, write_tar
from tests.support.tiny import write_tiny_model
from tests.support.tiny_engines import write_controlnet, write_depth_model


def run(command: Any, arguments: list[str], during: During | None = None) -> int:
    """Run a command in this process, without Ray."""
    options = command.parse(arguments)
    condition = "depth" if command is synthesize else None
    job = _engines.engine_job(options, condition, command.engine_task_run)
    environment = Environment(store=FILES, executor=InProcess(during), heartbeat=lambda beat: nullcontext())
    return run_job(job, _cli.request_of(options), environment)


def killed_after(count: int) -> During:
    """Process some chunks, then end as SIGKILL does."""

    def during(chunks: Sequence[Chunk], do: Callable[[Chunk], None]) -> None:
        for chunk in chunks[:count]:
            do(chunk)
        raise KilledError

    return during


def test_kills_and_batches_change_no_row_of_a_foreign_engine(tmp_path: Path) -> None:
    """A depth estimator of transformers, whose images have several sizes and whose chunks have bad samples."""
    model = write_depth_model(tmp_path / "tiny-depth")
    sizes = [(60, 40), (40, 60), (60, 40), (90, 30)]
    members = [(f"{at:02d}.jpg", encoded_image(at, sizes[at % 4])) for at in range(10)]
    write_tar(tmp_path / "in" / "a.tar", [*members, ("bad.jpg", b"x")])
    common = ["--input", str(tmp_path / "in"), "--engine", f"transformers:{model}"]
    killed = [*common, "--output", str(tmp_path / "killed"), "--chunk-size", "4"]
    for count in (1, 1):
        with pytest.raises(KilledError):
            run(estimate, killed, killed_after(count))
    assert run(estimate, [*killed, "--batch-size", "1"]) == 0
    assert run(estimate, [*common, "--output", str(tmp_path / "whole"), "--chunk-size", "11"]) == 0
    found, expected = (maps(tmp_path / name) for name in ("killed", "whole"))
    assert Counter(row["key"] for row in all_rows(tmp_path / "killed", "data")) == Counter(
        f"{n:02d}" for n in range(10)
    )
    assert [row["key"] for row in all_rows(tmp_path / "killed", "errors")] == ["bad"]
    for key, depth in expected.items():
        assert depth.mode == "I;16" and found[key].size == depth.size == sizes[int(key) % 4]
        difference = np.abs(np.asarray(found[key], np.int64) - np.asarray(depth, np.int64))
        assert difference.max() <= 65535 * 2e-4  # rounding of batched products


def test_a_row_on_which_an_engine_fails_is_an_error_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.transformers_model import DepthModel, Prepared

    real = DepthModel.compute

    def compute(self: DepthModel, prepared: Prepared, seeds: Sequence[int]) -> list[np.ndarray]:
        if 90 in {width for _, width in prepared.sizes}:
            raise ValueError("too wide")
        found = real(self, prepared, seeds)
        return [values * np.nan if size == (44, 60) else values
                for values, size in zip(found, prepared.sizes, strict=True)]  # fmt: skip

    monkeypatch.setattr(DepthModel, "compute", compute)
    sizes = {"a": (60, 40), "b": (90, 60), "c": (60, 40), "d": (60, 44)}
    write_tar(tmp_path / "in" / "a.tar", [(f"{key}.jpg", encoded_image(0, size)) for key, size in sizes.items()])
    model = write_depth_model(tmp_path / "tiny-depth")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert run(estimate, [*arguments, "--engine", f"transformers:{model}"]) == 0
    assert sorted(str(row["key"]) for row in all_rows(tmp_path / "out", "data")) == ["a", "c"]
    reasons = {str(row["key"]): f"{row['stage']}: {row['reason']}" for row in all_rows(tmp_path / "out", "errors")}
    assert reasons == {"b": "model: ValueError: too wide", "d": "model: it returned values that are not finite"}


def maps(output: Path) -> dict[str, Image.Image]:
    return {str(row["key"]): Image.open(io.BytesIO(row["depth"]["bytes"])) for row in all_rows(output, "data")}  # type: ignore[index]


def test_an_engine_in_a_real_run(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "in" / "a.tar", [*samples(6), ("bad.jpg", encoded_image()[:400])])
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--chunk-size", "4"]
    arguments += ["--num-gpus-per-actor", "0", "--engine", "controlnet-aux:canny", "--engine-option", "detect_px=64"]
    assert estimate.main(arguments) == 0
    assert "7 of 7 samples: 6 rows in data/, 1 in errors/" in capsys.readouterr().err
    rows = all_rows(tmp_path / "out", "data")
    assert {(row["engine"], row["engine_options"]) for row in rows} == {("controlnet-aux:canny", "detect_px=64")}
    assert all(Image.open(io.BytesIO(row["canny"]["bytes"])).mode == "L" for row in rows)  # type: ignore[index]
    notes = pq.read_schema(next((tmp_path / "out" / "data").iterdir())).metadata
    assert notes[b"canny_kind"] == b"edge" and notes[b"canny_encoding"].startswith(b"8-bit gray PNG")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Canny maps" in card and "| engine | `controlnet-aux:canny` |" in card and "engine_package" in card
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: estimate.main([*arguments[:-1], "detect_px=128"]))
    assert exit_.value.code == 2 and "engine_options" in capsys.readouterr().err


def test_images_by_a_controlnet(tmp_path: Path) -> None:
    net, base = write_controlnet(tmp_path / "net"), write_tiny_model(tmp_path / "base")
    depths = [encoded_image(number, (60, 40), kind="PNG", mode="L") for number in range(3)]
    path = write_parquet(tmp_path / "in.parquet", {"depth": depths, "key": list("abc"), "caption": ["one", None, "x"]})
    arguments = [
        "--input",
        str(path),
        "--output",
        str(tmp_path / "out"),
        "--condition",
        "depth=depth",
        "--prompt",
        "all",
    ]
    arguments += ["--engine", f"controlnet:{net}", "--model", str(base), "--engine-option", "num_inference_steps=1"]
    arguments += ["--weight", "depth=0.5", "--negative-prompt", "fog"]
    assert run(synthesize, arguments) == 0
    rows = all_rows(tmp_path / "out", "data")
    assert sorted((row["key"], row["caption"]) for row in rows) == [("a", "one"), ("b", "all"), ("c", "x")]  # type: ignore[type-var]
    for row in rows:
        assert (row["engine"], row["model"], row["weights"]) == ("controlnet:net", "base", "depth=0.5")
        assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (60, 40)  # type: ignore[index]
        assert row["depth"]["bytes"] == depths["abc".index(str(row["key"]))]  # type: ignore[index]


CANNY = ["--engine", "controlnet-aux:canny"]
NET = ["--engine", "controlnet:x"]


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        (estimate, [*CANNY, "--steps", "5"], "--steps belongs to the engine unicon"),
        (estimate, [*CANNY, "--views", "2"], "given as --engine-option NAME=VALUE, are detect_px, low_threshold"),
        (estimate, [*CANNY, "--preset", "fast"], "--preset belongs to the engine unicon"),
        (estimate, [*CANNY, "--model", "x/y"], "--model belongs to the engine unicon"),
        (estimate, [*CANNY, "--adapter", "x"], "--adapter belongs to the engine unicon"),
        (estimate, [*CANNY, "--compile", "always"], "--compile belongs to the engine unicon"),
        (estimate, [*CANNY, "--ensemble", "3"], "--ensemble belongs to the engine unicon"),
        (estimate, [*CANNY, "--condition", "a", "b"], "estimates one condition; got --condition a b"),
        (estimate, ["--engine-option", "a=1"], "--engine-option a=1 is for engines other than unicon"),
        (estimate, ["--engine-weights", "x"], "--engine-weights x is for engines other than unicon"),
        (estimate, NET, "makes images from conditions. Use it with jobs/synthesize.py"),
        (
            estimate,
            ["--engine", "unicon:depth"],
            "an engine is unicon, or one of controlnet-aux:NAME",
        ),
        (synthesize, ["--engine", "marigold:x"], "estimates conditions of images. Use it with jobs/estimate.py"),
        (synthesize, [*NET, "--coarse", "0.5"], "--coarse belongs to the engine unicon"),
        (synthesize, [*NET, "--condition", "edge=e"], "follows one condition; got depth, edge"),
        (synthesize, [*NET, "--engine-option", "guidance_scale=1", "--negative-prompt", "fog"], "switches off"),
    ],
)
def test_options_that_do_not_fit_the_engine(
    command: Any, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    condition = ["--condition", "depth=d"] if command is synthesize else []
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: command.main(["--input", "in", "--output", "out", *condition, *options]))
    told = capsys.readouterr().err
    assert exit_.value.code == 2 and message in told and "Traceback" not in told
