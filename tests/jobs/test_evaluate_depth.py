"""The evaluate_depth command on estimates whose quality is known."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import _cli, evaluate_depth
from pipelines.dataset.schema import MEDIA
from pipelines.evaluation.measures import TrainingScenes
from pipelines.scenes.render import shard_task
from pipelines.scenes.tar_writer import write_tar_shard
from tests.support.inputs import samples, write_parquet, write_tar
from unicon.conditions import encode_depth
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering

SEED, SIZE_PX = 9, (32, 24)
FAST = ["--baseline-scenes", "12"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes 0 to 9 in two tars."""
    folder = tmp_path_factory.mktemp("truth")
    for start, stop in ((0, 6), (6, 10)):
        write_tar_shard(shard_task(str(folder), SEED, SIZE_PX, start, stop))
    return folder


def write_estimates(
    folder: Path, indices: range, estimate: Callable[[Rendering], np.ndarray], name: str = "part-0"
) -> Path:
    """Write estimates of scenes in the layout of estimate_depth."""
    rows = []
    for index in indices:
        buffer = io.BytesIO()
        encode_depth(estimate(render(sample_scene(SEED, index), *SIZE_PX))).save(buffer, "PNG")
        depth = {"bytes": buffer.getvalue(), "path": None}
        rows.append({"key": f"s{SEED}-{index:08d}", "depth": depth, "model": "a model", "seed": 3})
    schema = pa.schema([("key", pa.string()), ("depth", MEDIA), ("model", pa.string()), ("seed", pa.int64())])
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "_chunks").mkdir(exist_ok=True)
    (folder / "_chunks" / "configuration-0.json").write_text("{}")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "data" / f"{name}.parquet")
    return folder


def exact(rendering: Rendering) -> np.ndarray:
    return rendering.inverse_depth


def constant(rendering: Rendering) -> np.ndarray:
    return np.full(rendering.depth_m.shape, 0.5)


def evaluated(folder: Path, truth: Path, *more: str) -> dict:
    result = folder / "result.json"
    arguments = ["--predictions", str(folder), "--truth", str(truth), "--json", str(result)]
    assert evaluate_depth.main([*arguments, *FAST, *more]) == 0
    return json.loads(result.read_text())


def test_exact_estimates_are_perfect(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_estimates(tmp_path, range(0, 4), exact)
    write_estimates(tmp_path, range(4, 10), exact, name="part-1")
    result = evaluated(tmp_path, truth, "--picture", str(tmp_path / "sheet.png"))
    assert result["images"] == 10
    assert result["estimates"] == {"model": "a model", "seed": 3}
    metrics = result["metrics"]
    assert metrics["UniCon"]["abs_rel"] < 1e-3 and metrics["UniCon"]["delta1"] == 1
    assert all(0.1 < metrics[name]["abs_rel"] < 0.4 for name in ("mean of training scenes", "vertical ramp"))
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()] == ["AbsRel", "UniCon", "mean", "vertical"]
    assert told.err == ""
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * (3 * 32 + 8) + 8, 16 + 4 * (24 + 8) + 8)


def test_worse_estimates_are_worse(truth: Path, tmp_path: Path) -> None:
    write_estimates(tmp_path, range(10), constant)
    metrics = evaluated(tmp_path, truth)["metrics"]
    assert metrics["UniCon"]["abs_rel"] > metrics["mean of training scenes"]["abs_rel"]


def test_the_mean_map_is_the_mean_of_other_scenes() -> None:
    expected = np.mean([render(sample_scene(4, index), 20, 16).inverse_depth for index in range(3)], axis=0)
    found = TrainingScenes(4, 3).mean(lambda scene: scene.inverse_depth, 16, 20)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_keys_of_one_side_only_are_told(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_estimates(tmp_path, range(5, 12), exact)
    result = evaluated(tmp_path, truth)
    assert (result["images"], result["scenes_without_estimate"], result["estimates_without_scene"]) == (5, 5, 2)
    told = capsys.readouterr().err
    assert "5 scenes have no estimate and are left out: s9-00000000, s9-00000001" in told
    assert "2 estimates have no scene and are left out: s9-00000010, s9-00000011" in told


def refused(capsys: pytest.CaptureFixture[str], predictions: Path, truth: Path, *more: str) -> str:
    arguments = ["--predictions", str(predictions), "--truth", str(truth), *FAST, *more]
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: evaluate_depth.main(arguments))
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_nothing_in_common(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimates = write_estimates(tmp_path, range(20, 22), exact)
    told = refused(capsys, estimates, truth)
    assert "have no key in common" in told and "'s9-00000020'" in told and "'s9-00000000'" in told


def test_wrong_settings(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimates = write_estimates(tmp_path / "estimates", range(2), exact)
    assert "--predictions" in refused(capsys, tmp_path / "absent", truth)
    assert "--truth" in refused(capsys, estimates, tmp_path / "absent")
    assert "contains no Parquet files" in refused(capsys, truth, truth)
    assert "contains no tars" in refused(capsys, estimates, estimates)
    other = write_parquet(tmp_path / "other" / "a.parquet", {"key": ["x"], "picture": [b""]})
    assert "must have the columns key and depth" in refused(capsys, other, truth)
    tar = write_tar(tmp_path / "plain.tar", samples(2))
    assert "lacks .png" in refused(capsys, estimates, tar)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, estimates, truth, "--json", str(tmp_path / "file" / "x.json"))


def test_repeated_keys(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_estimates(tmp_path, range(2), exact)
    assert "keys must be unique" in refused(capsys, write_estimates(tmp_path, range(1), exact, name="again"), truth)


def test_another_size(truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    estimates = write_estimates(tmp_path, range(2), lambda rendering: np.zeros((8, 8)))
    assert "'s9-00000000' cannot be evaluated: estimate and truth must have" in refused(capsys, estimates, truth)
