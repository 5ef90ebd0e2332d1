"""The estimation task and the three stages without Ray: seeds, and a block from reading to publication."""

import dataclasses
import io
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import estimate
from pipelines.dataset import layout
from pipelines.errors import SampleError, SettingError
from pipelines.planning.plan import make_plan
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.stages.task import row_seed
from pipelines.tasks.condition_columns import MIRRORING_VIEWS, ConditionColumn
from pipelines.tasks.estimation import Estimation
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import all_rows, encoded_image, samples, write_tar
from tests.support.run_fake_job import identity
from unicon.adapters.config import Recommended
from unicon.views import VIEWS

SOURCE = ImageShards(columns=Columns())
PROVENANCE = {"model": "fake", "seed": 0}


def estimation(*conditions: str, ensemble_size: int | None = None) -> Estimation:
    columns = tuple(ConditionColumn(name=name, kind=name) for name in conditions or ("depth",))
    return Estimation(conditions=columns, max_pixels=10**6, ensemble_size=ensemble_size)


def test_a_row_seed_is_the_same_everywhere() -> None:
    assert row_seed(0, "00000") == 3222486875533972245
    assert len({row_seed(run, key) for run in range(10) for key in "abc"}) == 30
    assert all(0 <= row_seed(run, "x") < 2**63 for run in range(100))


def measured_in(folder: Path) -> Any:
    """Measure the shards in the folder `in` of a folder."""
    return measure(find_shards([str(folder / "in")]), Columns(), str(folder / "out"))


def publish(task: Estimation, inputs: Path, output: Path, model: FakeDepth | None = None) -> dict[str, int]:
    """Read, compute and publish the only chunk of the inputs without Ray; return its receipt."""
    measured = measured_in(inputs.parent)
    (chunk,) = make_plan(measured, layout.list_output(str(output)), "c" * 16, 10).chunks
    block = ReadRows(task=task, source=SOURCE)(chunk)
    block = ComputeRows(task=task, model=model or FakeDepth(), run_seed=0, batch_size=2).build()(chunk, block)
    return PublishRows(output=str(output), task=task, provenance=PROVENANCE)(chunk, block)


def test_an_ensemble_adds_its_confidence_and_a_condition_names_its_column(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    assert publish(estimation("edge", ensemble_size=4), tmp_path / "in", tmp_path / "out")["ok"] == 3
    for row in all_rows(tmp_path / "out", "data"):
        assert row["confidence"] == 0.25
        edge = Image.open(io.BytesIO(row["edge"]["bytes"]))
        assert (edge.mode, edge.size) == ("L", (row["width"], row["height"]))


def test_maps_of_large_images_get_the_size_of_the_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [("a.jpg", encoded_image(1, (1000, 900)))])
    publish(estimation(), tmp_path / "in", tmp_path / "out")
    (row,) = all_rows(tmp_path / "out", "data")
    depth = Image.open(io.BytesIO(row["depth"]["bytes"]))
    assert (depth.mode, depth.size) == ("I;16", (1000, 900))
    (chunk,) = make_plan(measured_in(tmp_path), layout.list_output(str(tmp_path)), "c" * 16, 10).chunks
    (sample,) = SOURCE.read(chunk)
    widths = [estimation().read(sample)["pixels"]["width"],
              dataclasses.replace(estimation(), transport_area_px=10**6).read(sample)["pixels"]["width"]]  # fmt: skip
    assert widths[0] < 1000 and widths[1] == 1000, "an engine may be given more pixels"


def test_values_that_are_not_finite_are_an_error_that_names_the_condition() -> None:
    good, bad = np.full((4, 4), 0.5, np.float32), np.full((4, 4), np.nan)
    result = estimation()._result({"depth": bad}, {})
    assert isinstance(result, SampleError) and result.reason == "it returned values that are not finite"
    result = estimation("depth", "edge")._result({"depth": good, "edge": bad}, {})
    assert isinstance(result, SampleError) and result.reason == "it returned values that are not finite for edge"


def test_several_conditions_are_columns_side_by_side_and_equal_to_those_of_single_runs(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", samples(3))
    for name, task in {
        "both": estimation("depth", "edge", ensemble_size=2), "depth": estimation("depth", ensemble_size=2)
    }.items():  # fmt: skip
        assert publish(task, tmp_path / "in", tmp_path / name)["ok"] == 3
    both, depths = all_rows(tmp_path / "both", "data"), all_rows(tmp_path / "depth", "data")
    names = ["key", "image", "depth", "edge", "depth_confidence", "edge_confidence", "caption"]
    assert [*both[0]][:7] == names and [*depths[0]][:5] == ["key", "image", "depth", "confidence", "caption"]
    assert [row["depth"] for row in both] == [row["depth"] for row in depths]
    assert {(row["depth_confidence"], row["edge_confidence"]) for row in both} == {(0.5, 0.5)}
    (file,) = (tmp_path / "both" / "data").iterdir()
    assert {b"depth_encoding", b"edge_encoding"} <= pq.read_schema(file).metadata.keys()


def test_one_chunk_from_reading_to_publication(tmp_path: Path) -> None:
    members = [*samples(3), ("bad.jpg", b"hello"), ("tall.bmp", encoded_image(7, (32, 48), "BMP"))]
    write_tar(tmp_path / "in" / "a.tar", members)
    output = str(tmp_path / "out")
    receipt = publish(estimation(), tmp_path / "in", tmp_path / "out")
    assert (receipt["ok"], receipt["bad"]) == (4, 1)
    rows = {row["key"]: row for row in all_rows(tmp_path / "out", "data")}
    assert rows["00001"]["image"]["bytes"] == members[2][1]
    assert rows["00001"]["caption"] == "caption 1"
    assert rows["00001"]["seed"] == row_seed(0, "00001")
    assert (rows["tall"]["width"], rows["tall"]["height"]) == (32, 48)
    assert rows["tall"]["image"]["bytes"][:4] == b"\x89PNG"
    (error,) = all_rows(tmp_path / "out", "errors")
    assert (error["key"], error["position"], error["stage"]) == ("bad", 3, "decode")
    assert [version.ok for version in layout.list_output(output).finished] == [4]


def test_a_chunk_of_bad_samples_only_has_no_data_file(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [("a.jpg", b"x"), ("b.jpg", b"y")])
    assert publish(estimation(), tmp_path / "in", tmp_path / "out")["bad"] == 2
    assert not (tmp_path / "out" / "data").exists()
    assert len(all_rows(tmp_path / "out", "errors")) == 2


def test_media_columns_are_plain_and_uncompressed(tmp_path: Path) -> None:
    test_one_chunk_from_reading_to_publication(tmp_path)
    (path,) = (tmp_path / "out" / "data").iterdir()
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    for name in ("image.bytes", "depth.bytes"):
        assert columns[name].compression == "UNCOMPRESSED"
        assert set(columns[name].encodings) == {"PLAIN", "RLE"}
        assert not columns[name].is_stats_set
    assert columns["model"].compression == "ZSTD"


def test_an_image_that_the_model_raises_on_is_an_error_and_a_bug_is_not(tmp_path: Path) -> None:
    blue = io.BytesIO()
    Image.new("RGB", (48, 32), (0, 0, 255)).save(blue, "PNG")
    write_tar(tmp_path / "in" / "a.tar", [*samples(5), ("blue.png", blue.getvalue())])
    receipt = publish(estimation(), tmp_path / "in", tmp_path / "out", FakeDepth(raise_on_blue=True))
    assert receipt["ok"] == 5
    (error,) = all_rows(tmp_path / "out", "errors")
    assert error["key"] == "blue"
    assert error["reason"] == "RuntimeError: the size of tensor a must match the size of tensor b"
    with pytest.raises(RuntimeError, match="no such operator"):
        publish(estimation(), tmp_path / "in", tmp_path / "other", FakeDepth(raises="no such operator"))


def test_views_are_those_of_the_option_else_of_the_adapter_and_are_written_down() -> None:
    asked = ["--input", "in", "--output", "out"]
    depth, pose = identity("depth"), identity("pose")
    recommending = dataclasses.replace(depth, recommended={"depth": Recommended(steps=1, views=4)})
    found = [
        estimate.task_run(estimate.parse([*asked, *options]), who, FakeDepth())
        for who, options in ((depth, []), (recommending, []), (recommending, ["--views", "2"]))
    ]
    assert [cast(Estimation, run.task).num_views for run in found] == [1, 4, 2]
    assert [run.provenance.get("views") for run in found] == [None, 4, 2]
    with pytest.raises(SettingError, match="a pose distinguishes left from right"):
        estimate.task_run(estimate.parse([*asked, "--condition", "pose", "--views", "4"]), pose, FakeDepth())


def test_conditions_that_recommend_different_settings_keep_them_and_write_them_down() -> None:
    def run(*options: str, **recommended: Recommended) -> tuple[Estimation, dict[str, Any]]:
        who = dataclasses.replace(identity(*recommended), recommended=recommended)
        asked = ["--input", "in", "--output", "out", "--condition", *recommended, *options]
        made = estimate.task_run(estimate.parse(asked), who, FakeDepth())
        return cast(Estimation, made.task), {
            name: value for name, value in made.provenance.items() if name.endswith(("steps", "views", "scale"))
        }

    depth, pose = Recommended(steps=1, views=4), Recommended(steps=4, views=1)
    task, columns = run(depth=depth, pose=pose)
    assert (task.sampling.num_inference_steps, task.sampling.guidance_scale, task.num_views) == (None, 1.0, None)
    assert columns == {
        "guidance_scale": 1.0, "depth_views": 4, "pose_views": 1, "depth_num_inference_steps": 1,
        "pose_num_inference_steps": 4,
    }  # fmt: skip
    task, columns = run("--steps", "3", "--views", "2", depth=depth, pose=pose)
    assert (task.sampling.num_inference_steps, task.num_views) == (3, 2)
    assert columns == {"num_inference_steps": 3, "guidance_scale": 1.0, "views": 2}
    assert run(depth=depth, edge=depth)[1] == {"num_inference_steps": 1, "guidance_scale": 1.0, "views": 4}
    with pytest.raises(SettingError, match="a pose distinguishes left from right"):
        run("--views", "4", depth=depth, pose=pose)


def test_four_views_include_mirrored_ones() -> None:
    assert all(any(view.mirrored for view in views) == (count >= MIRRORING_VIEWS) for count, views in VIEWS.items())
