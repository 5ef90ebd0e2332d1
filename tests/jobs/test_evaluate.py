"""The evaluate command on estimates of edges and poses whose quality is known, and on maps to compare."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import _cli, evaluate
from pipelines.dataset.schema import MEDIA
from pipelines.dataset.tar_bytes import tar_bytes
from pipelines.evaluation.accuracy import quarters
from pipelines.scenes.render import sample_files, shard_task
from pipelines.scenes.tar_writer import write_tar_shard
from tests.support.inputs import samples, write_tar
from unicon.conditions import CONDITIONS
from unicon.scenes import render
from unicon.scenes.layout import sample_scene
from unicon.scenes.render import Rendering

SEED, SIZE_PX, COUNT = 9, (48, 32), 10
FAST = ["--baseline-scenes", "12"]
TRUTHS: dict[str, Callable[[Rendering], np.ndarray]] = {
    "depth": lambda scene: scene.inverse_depth,
    "edge": lambda scene: scene.edges.astype(np.float32),
    "pose": lambda scene: scene.pose.astype(np.float32) / 255,
}


@pytest.fixture(scope="module")
def scenes() -> list[Rendering]:
    return [render(sample_scene(SEED, index), *SIZE_PX) for index in range(COUNT)]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes 0 to 9 in two tars."""
    folder = tmp_path_factory.mktemp("truth")
    for start, stop in ((0, 6), (6, COUNT)):
        write_tar_shard(shard_task(str(folder), SEED, SIZE_PX, start, stop))
    return folder


def write_maps(
    path: Path, condition: str, maps: list[np.ndarray], confidence: list[float | None] | None = None
) -> Path:
    """Write maps of scenes 0, 1, ... in the layout of an estimation job."""
    rows = []
    for index, values in enumerate(maps):
        buffer = io.BytesIO()
        CONDITIONS[condition].encode(values).save(buffer, "PNG")
        row = {"key": f"s{SEED}-{index:08d}", condition: {"bytes": buffer.getvalue(), "path": None}}
        rows.append(row if confidence is None else {**row, "confidence": confidence[index]})
    fields = [("key", pa.string()), (condition, MEDIA)]
    schema = pa.schema(fields if confidence is None else [*fields, ("confidence", pa.float32())])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


def evaluated(folder: Path, truth: Path, condition: str, *more: str, measure: str = "accuracy") -> dict:
    result = folder / "result.json"
    arguments = ["--condition", condition, "--measure", measure, "--predictions", str(folder / "maps.parquet")]
    assert evaluate.main([*arguments, "--truth", str(truth), "--json", str(result), *FAST, *more]) == 0
    return json.loads(result.read_text())


@pytest.mark.parametrize("condition", ["depth", "edge", "pose"])
def test_the_truth_is_perfect_and_beats_every_baseline(
    condition: str, scenes: list[Rendering], truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_maps(tmp_path / "maps.parquet", condition, [TRUTHS[condition](scene) for scene in scenes])
    result = evaluated(tmp_path, truth, condition, "--picture", str(tmp_path / "sheet.png"))
    best, name = {"depth": (0, "abs_rel"), "edge": (1, "f1"), "pose": (1, "pck")}[condition]
    numbers = {row: found[name] for row, found in result["metrics"].items()}
    assert numbers.pop("UniCon") == pytest.approx(best, abs=0.15 if condition == "pose" else 1e-3)
    assert "mean of training scenes" in numbers
    assert all(abs(number - best) > 0.1 for number in numbers.values())
    assert result["images"] == COUNT and "by_confidence" not in result
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][1] == "UniCon"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * (3 * 48 + 8) + 8, 16 + 4 * (32 + 8) + 8)


def test_edges_a_pixel_beside_the_true_ones_are_right(scenes: list[Rendering], truth: Path, tmp_path: Path) -> None:
    shifted = [np.roll(TRUTHS["edge"](scene), 1, 1) for scene in scenes]
    write_maps(tmp_path / "maps.parquet", "edge", shifted)
    found = evaluated(tmp_path, truth, "edge")["metrics"]
    assert found["UniCon"]["f1"] > 0.97
    assert list(found) == ["UniCon", "gradient of the picture", "mean of training scenes"]


def test_drawing_nobody_finds_no_joint_and_invents_none(scenes: list[Rendering], truth: Path, tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.parquet", "pose", [np.zeros((SIZE_PX[1], SIZE_PX[0], 3))] * COUNT)
    found = evaluated(tmp_path, truth, "pose")["metrics"]
    assert (found["UniCon"]["pck"], found["UniCon"]["invention"]) == (0, 0)
    assert found["UniCon"]["visible"] == sum(int((scene.people[..., 2] > 0).sum()) for scene in scenes)
    assert found["mean of training scenes"]["invention"] == 1


def test_nobody_in_any_scene_is_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = next(
        scene for scene in (render(sample_scene(SEED, i), *SIZE_PX) for i in range(40)) if not scene.pose.any()
    )
    (tmp_path / "truth.tar").write_bytes(tar_bytes([(f"s{SEED}-00000000", sample_files(empty, {}))]))
    write_maps(tmp_path / "maps.parquet", "pose", [empty.pose / 255])
    found = evaluated(tmp_path, tmp_path / "truth.tar", "pose")["metrics"]["UniCon"]
    assert found["pck"] is None and found["invention"] == 0
    assert "nan" in capsys.readouterr().out


@pytest.mark.parametrize("condition", ["depth", "edge"])
def test_the_error_falls_as_confidence_rises(
    condition: str, scenes: list[Rendering], truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    noise = np.linspace(0, 0.9, COUNT)
    maps = [
        (1 - share) * TRUTHS[condition](scene) + share * rng.random(scene.depth_m.shape)
        for share, scene in zip(noise, scenes, strict=True)
    ]
    write_maps(tmp_path / "maps.parquet", condition, maps, confidence=(1 - noise).tolist())
    found = evaluated(tmp_path, truth, condition)["by_confidence"]
    assert [part["images"] for part in found] == [3, 3, 2, 2]
    assert found[0]["error"] > found[-1]["error"] and found[0]["mean_confidence"] < found[-1]["mean_confidence"]
    told = capsys.readouterr().out
    assert "by confidence" in told and "lowest quarter" in told and "highest quarter" in told


def test_quarters_leave_out_what_is_unknown() -> None:
    found = quarters([0.1, None, 0.9, 0.4, 0.6, 0.5], np.array([4.0, 9, 1, 3, np.nan, 2]))
    assert [part.error for part in found] == [4, 3, 2, 1]
    assert [part.mean_confidence for part in found] == pytest.approx([0.1, 0.4, 0.5, 0.9])
    assert quarters([0.1, None, 0.9, 0.4], np.ones(4)) == []


@pytest.mark.parametrize("condition", ["depth", "edge", "pose"])
def test_correlation_of_matched_and_shuffled_maps(
    condition: str, scenes: list[Rendering], truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = [TRUTHS[condition](scene) for scene in scenes]
    write_maps(tmp_path / "maps.parquet", condition, [0.5 * values for values in maps])
    asked = write_maps(tmp_path / "asked" / "maps.parquet", condition, maps)
    drawn = [values.ravel() for values in maps if values.any()]
    assert condition != "pose" or 2 < len(drawn) < COUNT
    shuffled = [np.corrcoef(one, other)[0, 1] for one, other in zip(drawn, [*drawn[1:], drawn[0]], strict=True)]
    for against in (truth, asked):
        found = evaluated(tmp_path, against, condition, measure="correlation")
        assert (found["pairs"], found["constant_truths_left_out"]) == (len(drawn), COUNT - len(drawn))
        assert found["correlation"]["matched"] == pytest.approx(1, abs=0.02)
        assert found["correlation"]["shuffled"] == pytest.approx(np.mean(shuffled), abs=0.02)
        assert np.mean(shuffled) < 0.9
    told = capsys.readouterr().out.splitlines()
    assert told[0].split() == ["matched", "shuffled", "pairs"] and told[1].startswith(f"correlation of {condition}")


def test_correlation_of_maps_of_another_size(scenes: list[Rendering], truth: Path, tmp_path: Path) -> None:
    halved = [scene.inverse_depth.reshape(16, 2, 24, 2).mean((1, 3)) for scene in scenes]
    write_maps(tmp_path / "maps.parquet", "depth", halved)
    assert evaluated(tmp_path, truth, "depth", measure="correlation")["correlation"]["matched"] > 0.98


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        _cli.finish(lambda: evaluate.main([*arguments, *FAST]))
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_wrong_settings(
    scenes: list[Rendering], truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edges = str(write_maps(tmp_path / "edges.parquet", "edge", [TRUTHS["edge"](scenes[0])]))
    against = ["--predictions", edges, "--truth", str(truth)]
    assert "--condition" in refused(capsys, *against)
    assert "invalid choice: 'edges'" in refused(capsys, "--condition", "edges", *against)
    assert "must have the columns key and pose" in refused(capsys, "--condition", "pose", *against)
    alike = ["--condition", "edge", "--measure", "correlation", "--predictions", edges, "--truth"]
    assert "at least two common keys" in refused(capsys, *alike, str(truth))
    assert "--picture needs" in refused(capsys, *alike, str(truth), "--picture", "x.png")
    other = str(write_maps(tmp_path / "depths.parquet", "depth", [scenes[0].inverse_depth]))
    assert "--truth: files must have the columns key and edge" in refused(capsys, *alike, other)
    plain = str(write_tar(tmp_path / "plain.tar", samples(2)))
    assert "lacks .png" in refused(capsys, "--condition", "edge", "--predictions", edges, "--truth", plain)
    small = str(write_maps(tmp_path / "small.parquet", "pose", [np.zeros((8, 8, 3))]))
    told = refused(capsys, "--condition", "pose", "--predictions", small, "--truth", str(truth))
    assert "cannot be evaluated: estimate and truth must have the same shape" in told
