"""The tasks that generate images, stage by stage without Ray, with a tiny real model that checks every argument."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.dataset import layout
from pipelines.planning.plan import make_plan
from pipelines.readers.prompts import PromptFiles
from pipelines.readers.sources import ImageShards, Repeated, Source
from pipelines.samples import Columns
from pipelines.stages.compute import ComputeRows
from pipelines.stages.publish import PublishRows
from pipelines.stages.read import ReadRows
from pipelines.stages.task import Task, row_seed
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.inpainting import Inpainting
from pipelines.tasks.pair_generation import PairGeneration
from pipelines.tasks.synthesis import Synthesis
from tests.support.inputs import all_rows, encoded_image, samples, write_folder, write_parquet, write_tar
from unicon.options import SamplingOptions

torch.set_num_threads(1)  # tiny models are slower on several threads
COMMON: Mapping[str, Any] = {"sampling": SamplingOptions(num_inference_steps=2, guidance_scale=2.0, sampler="euler")}
DEPTH = ConditionColumn(name="depth", kind="depth")
POSE = ConditionColumn(name="pose", kind="pose")


@dataclass(frozen=True)
class Tiny:
    """The description of the tiny model."""

    def build(self) -> Any:
        from tests.support.tiny import tiny_model

        return tiny_model()


def publish(task: Task, source: Source, inputs: Path, output: Path, batch_size: int = 2) -> list[dict[str, Any]]:
    """Process the inputs, which are one chunk; return its rows."""
    measured = source.measure(source.find([str(inputs)], str(output)), str(output), None)
    (chunk,) = make_plan(measured, layout.list_output(str(output)), "c" * 16, 20).chunks
    block = ReadRows(task=task, source=source)(chunk)
    block = ComputeRows(task=task, model=Tiny(), run_seed=7, batch_size=batch_size).build()(chunk, block)
    PublishRows(output=str(output), task=task, provenance={"model": "tiny", "seed": 7})(chunk, block)
    return all_rows(output, "data")


def opened(media: Any) -> Image.Image:
    return Image.open(io.BytesIO(media["bytes"]))


def depth_png(size: tuple[int, int] = (40, 32)) -> bytes:
    buffer = io.BytesIO()
    ramp = np.tile(np.linspace(0, 65535, size[0]).astype(np.uint16), (size[1], 1))
    Image.fromarray(ramp).save(buffer, "PNG")
    return buffer.getvalue()


def synthesis(**options: Any) -> Synthesis:
    return Synthesis(
        **{**COMMON, "conditions": (DEPTH, POSE), "media": {"depth": "depth.png", "pose": "pose.png"}, **options},
        max_pixels=10**6,
    )


def shards(*media: str) -> ImageShards:
    columns = Columns(image=media[0], media=media)
    return ImageShards(columns=columns, media_options={name: f"--condition {name}" for name in media})


@pytest.fixture
def conditions(tmp_path: Path) -> Path:
    """A tar with three rows with depth and pose, one without a pose, and one with broken files."""
    members = []
    for number in range(3):
        members += [
            (f"{number}.depth.png", depth_png()),
            (f"{number}.pose.png", encoded_image(number, (80, 64), "PNG")),
        ]
    members += [("0.txt", b"a room"), ("3.depth.png", depth_png()), ("4.depth.png", b"junk"), ("4.pose.png", b"x")]
    return write_tar(tmp_path / "in" / "a.tar", sorted(members))


def test_synthesis_follows_all_conditions_of_a_row(conditions: Path, tmp_path: Path) -> None:
    task = synthesis(prompt="a yard", negative_prompt="fog")
    rows = publish(task, shards("depth.png", "pose.png"), conditions, tmp_path / "out")
    assert [(row["key"], row["caption"]) for row in rows] == [("0", "a room"), ("1", "a yard"), ("2", "a yard")]
    for row in rows:
        assert opened(row["image"]).size == (row["width"], row["height"]) == (40, 32)
        assert row["depth"]["bytes"] == depth_png()
        assert opened(row["pose"]).size == (80, 64)
        assert row["seed"] == row_seed(7, row["key"], row["shard"]) != row_seed(7, row["key"])
    reasons = [row["reason"] for row in all_rows(tmp_path / "out", "errors")]
    assert reasons[0] == "no member .pose.png: the sample has .depth.png"
    assert "not an image" in reasons[1]


def test_coarse_synthesis_gives_the_cleaned_conditions_too(conditions: Path, tmp_path: Path) -> None:
    rows = publish(synthesis(strength=0.5), shards("depth.png", "pose.png"), conditions, tmp_path / "out")
    refined = opened(rows[0]["depth_refined"])
    assert (refined.mode, refined.size) == ("I;16", (40, 32))
    assert opened(rows[0]["pose_refined"]).mode == "RGB"
    assert rows[0]["depth_refined"]["bytes"] != rows[0]["depth"]["bytes"]


def test_copies_of_a_row_differ_by_their_seeds_alone(tmp_path: Path) -> None:
    columns = {"depth": [depth_png((300, 30)), depth_png()], "key": ["a", "b"]}
    path = write_parquet(tmp_path / "in.parquet", columns)
    task = Synthesis(**COMMON, conditions=(DEPTH,), media={"depth": "depth"}, max_pixels=10**6)
    source = Repeated(source=shards("depth"), copies=2, option="--images-per-row")
    rows = publish(task, source, path, tmp_path / "one", batch_size=1)
    assert [row["key"] for row in rows] == ["a#0", "a#1", "b#0", "b#1"]
    assert rows[0]["image"]["bytes"] != rows[1]["image"]["bytes"]
    assert rows[0]["depth"]["bytes"] == rows[1]["depth"]["bytes"]
    again = publish(task, source, path, tmp_path / "two", batch_size=3)
    for row, other in zip(rows, again, strict=True):
        difference = np.asarray(opened(row["image"]), int) - np.asarray(opened(other["image"]), int)
        assert abs(difference).max() <= 1


def test_pairs_have_all_their_conditions(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"p.txt": b"a cat\na dog\n"})
    task = PairGeneration(**COMMON, conditions=(DEPTH, POSE), size_px=(48, 32))
    rows = publish(task, PromptFiles(), tmp_path / "in", tmp_path / "out")
    assert [(row["key"], row["caption"]) for row in rows] == [("p/00000000", "a cat"), ("p/00000001", "a dog")]
    for row in rows:
        assert (row["width"], row["height"]) == (48, 32)
        assert [opened(row[name]).mode for name in ("image", "depth", "pose")] == ["RGB", "I;16", "RGB"]
        assert {opened(row[name]).size for name in ("image", "depth", "pose")} == {(48, 32)}
    native = publish(PairGeneration(**COMMON, conditions=(DEPTH,)), PromptFiles(), tmp_path / "in", tmp_path / "native")
    assert {(row["width"], row["height"]) for row in native} == {(32, 32)}


def mask_png(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def test_inpainting_changes_the_masked_part_alone(tmp_path: Path) -> None:
    members = [("a.jpg", encoded_image(0, (40, 32))), ("a.mask.png", mask_png((40, 32))), ("a.txt", b"a boat")]
    members += [("b.png", encoded_image(1, (1500, 900), "PNG")), ("b.mask.png", mask_png((1500, 900)))]
    members += [("c.jpg", encoded_image(2)), ("c.mask.png", mask_png((9, 9))), *samples(1, first=7)]
    path = write_tar(tmp_path / "in" / "a.tar", members)
    task = Inpainting(**COMMON, conditions=(DEPTH,), mask="mask.png", max_pixels=10**7)
    source = ImageShards(columns=Columns(media=("mask.png",)), media_options={"mask.png": "--mask-column mask.png"})
    rows = publish(task, source, path, tmp_path / "out")
    assert [row["key"] for row in rows] == ["a", "b"]
    for row in rows:
        new, old = (np.asarray(opened(row[name]).convert("RGB"), int) for name in ("image", "original"))
        middle = new.shape[1] // 2
        np.testing.assert_array_equal(new[:, middle:], old[:, middle:])
        assert abs(new[:, :middle] - old[:, :middle]).max() > 10
        assert opened(row["depth"]).size == (row["width"], row["height"])
    assert [row["reason"].split(";")[-1].split(":")[0].strip() for row in all_rows(tmp_path / "out", "errors")] == [
        "this one has 9 x 9 pixels, the image 48 x 32",
        "no member .mask.png",
    ]


def overflow(key: str, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the denoiser overflow for one row, as float16 does for some."""
    noise, seed = torch.randn, row_seed(7, key, str(shard))

    def drawn(shape: Any, generator: torch.Generator) -> torch.Tensor:
        values = noise(shape, generator=generator)
        return values * torch.inf if generator.initial_seed() == seed else values

    monkeypatch.setattr("unicon.sampling.samplers.torch.randn", drawn)


def test_an_image_that_is_not_finite_is_an_error_row_and_its_neighbours_are_rows(
    conditions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shards("depth.png", "pose.png")
    before = publish(synthesis(prompt="a"), source, conditions, tmp_path / "before", batch_size=3)
    overflow("1", conditions, monkeypatch)
    rows = publish(synthesis(prompt="a"), source, conditions, tmp_path / "out", batch_size=3)
    assert [row["key"] for row in rows] == ["0", "2"]
    for row, other in zip(rows, [before[0], before[2]], strict=True):
        difference = np.asarray(opened(row["image"]), int) - np.asarray(opened(other["image"]), int)
        assert abs(difference).max() <= 1
    (error,) = (row for row in all_rows(tmp_path / "out", "errors") if row["stage"] == "model")
    assert (error["key"], "not finite" in error["reason"], len(error["reason"]) <= 200) == ("1", True, True)


def test_pairs_and_paintings_that_are_not_finite_are_error_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = write_folder(tmp_path / "in", {"p.txt": b"a cat\na dog\n"}) / "p.txt"
    overflow("p/00000001", prompts, monkeypatch)
    rows = publish(PairGeneration(**COMMON, conditions=(DEPTH,)), PromptFiles(), tmp_path / "in", tmp_path / "pairs")
    assert [row["key"] for row in rows] == ["p/00000000"]
    members = [(f"{key}.{end}", content) for key in "ab" for end, content in
               (("jpg", encoded_image(1, (40, 32))), ("mask.png", mask_png((40, 32))))]  # fmt: skip
    path = write_tar(tmp_path / "tar" / "a.tar", members)
    monkeypatch.undo()
    overflow("b", path, monkeypatch)
    task = Inpainting(**COMMON, conditions=(), mask="mask.png", max_pixels=10**7)
    source = ImageShards(columns=Columns(media=("mask.png",)), media_options={"mask.png": "--mask-column mask.png"})
    assert [row["key"] for row in publish(task, source, path, tmp_path / "painted")] == ["a"]
    for name in ("pairs", "painted"):
        assert ["not finite" in row["reason"] for row in all_rows(tmp_path / name, "errors")] == [True]
