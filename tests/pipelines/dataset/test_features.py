"""The code that a run prints for loading its rows, executed as printed: every image is loaded, in every format."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import estimate_depth
from jobs._cli import request_of
from pipelines.dataset.features import load_options
from pipelines.dataset.schema import MEDIA
from pipelines.dataset.webdataset import WebDataset
from pipelines.runs.environment import Environment
from pipelines.runs.runner import run_job
from pipelines.stages.publish import PublishRows
from tests.support.fake_depth import FakeDepth
from tests.support.in_process import InProcess
from tests.support.inputs import all_rows, encoded_image, write_tar
from tests.support.run_fake_job import identity

datasets = pytest.importorskip("datasets")
IMAGE_KINDS = ("jpg", "png", "webp")


def run(arguments: list[str]) -> str:
    """Run `estimate_depth` in this process and return its messages."""
    from jobs import estimate

    options = estimate_depth.parse(arguments)
    said: list[str] = []
    environment = Environment(
        executor=InProcess(), say=said.append, heartbeat=lambda beat: nullcontext(), afterwards=lambda output: None
    )
    job = estimate.task_run(options, identity("depth"), FakeDepth()).as_job()
    assert run_job(job, request_of(options), environment) == 0
    return "\n".join(said)


def loaded(code: str, cache: Path) -> list[dict[str, Any]]:
    """Load rows with a printed expression."""
    datasets.config.HF_DATASETS_CACHE = str(cache)
    rows = eval(code, {"datasets": datasets})  # noqa: S307 - this is what users do
    return list(rows["train"] if isinstance(rows, dict) else rows)


def image_of(row: dict[str, Any], prefix: str = "") -> Image.Image:
    (found,) = [row[prefix + kind] for kind in IMAGE_KINDS if row.get(prefix + kind) is not None]
    assert isinstance(found, Image.Image)
    return found


KINDS = {"a.jpg": "JPEG", "b.png": "PNG", "c.webp": "WEBP", "d.gif": "GIF", "e.png": "JPEG", "f.bmp": "BMP"}


@pytest.mark.parametrize("row_format", ["webdataset", "parquet"])
def test_the_printed_lines_load_every_image_of_every_kind(
    tmp_path: Path, row_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [(name, encoded_image(number, kind=kind)) for number, (name, kind) in enumerate(KINDS.items())]
    write_tar(tmp_path / "in" / "a.tar", members)
    output = tmp_path / "out"
    said = run(["--input", str(tmp_path / "in"), "--output", str(output), "--output-format", row_format])
    printed = re.search(r"load: +(.*)", said)
    assert printed is not None
    card = re.search(r"rows = (.*)", (output / "README.md").read_text())
    assert card is not None
    monkeypatch.chdir(output)  # paths in the card are relative
    as_a_folder = f'datasets.load_dataset("{output}", split="train")'  # as the hub does, by the front matter
    for number, code in enumerate((printed[1], card[1], as_a_folder)):
        rows = loaded(code, tmp_path / f"cache{number}")
        assert len(rows) == len(KINDS)
        for row in rows:
            image = row["image"] if row_format == "parquet" else image_of(row)
            depth = row["depth"] if row_format == "parquet" else row["depth.png"]
            assert image.size == depth.size == (48, 32)
            fields = row if row_format == "parquet" else row["json"]
            assert fields["key"] in "abcdef" and fields["width"] == 48


def test_the_names_of_images_match_their_formats(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "a.tar", [(name, encoded_image(1, kind=kind)) for name, kind in KINDS.items()])
    run(["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    paths = [row["image"]["path"] for row in all_rows(tmp_path / "out", "data")]
    assert paths == ["a.jpg", "b.png", "c.webp", "d.png", "e.jpg", "f.png"]


def generating_tasks() -> dict[str, Callable[[], Any]]:
    from pipelines.tasks.condition_columns import ConditionColumn
    from pipelines.tasks.inpainting import Inpainting
    from pipelines.tasks.pair_generation import PairGeneration
    from pipelines.tasks.synthesis import Synthesis

    depth = ConditionColumn(name="depth", kind="depth")
    return {
        "synthesize": lambda: Synthesis(conditions=(depth,), media={"depth": "depth.png"}, max_pixels=1),
        "inpaint": lambda: Inpainting(conditions=(depth,), mask="mask.png", max_pixels=1),
        "generate_pairs": lambda: PairGeneration(conditions=(depth,)),
    }


@pytest.mark.parametrize("name", ["synthesize", "inpaint", "generate_pairs"])
def test_generated_datasets_with_mixed_images_load_too(tmp_path: Path, name: str) -> None:
    """Images that are passed through may have any format; those of the model are PNGs."""
    task = generating_tasks()[name]()
    schema = PublishRows(output="", task=task, provenance={"model": "tiny", "seed": 7}).rows_schema()
    media = [field.name for field in schema if field.type == MEDIA]
    rows = []
    for number in range(7):
        kinds = {
            column: ("JPEG", "PNG", "WEBP")[number % 3] if column in task.passthrough.names else "PNG"
            for column in media
        }
        values = {column: {"bytes": encoded_image(number, kind=kind), "path": ""} for column, kind in kinds.items()}
        others = {
            field.name: number if "int" in str(field.type) else None for field in schema if field.name not in media
        }
        rows.append({**others, **values, "key": str(number)})
    (tmp_path / "a.tar").write_bytes(WebDataset().encode(rows, schema))
    options = load_options(WebDataset().features(schema, task.passthrough.names))
    code = f'datasets.load_dataset("webdataset", data_files="{tmp_path}/*.tar", split="train"{options})'
    found = loaded(code, tmp_path / "cache")
    assert [row["json"]["key"] for row in found] == [row["key"] for row in rows]
    for row in found:
        for column in media:
            assert image_of(row, "" if column == "image" else f"{column}.").size == (48, 32)


def test_captions_and_their_problems_are_columns(tmp_path: Path) -> None:
    captions = {"a.txt": "a red boat".encode("utf-16"), "b.json": b'{"caption": 3}', "c.txt": b"plain"}
    members = [(f"{name[0]}.jpg", encoded_image(1)) for name in captions] + [*captions.items()]
    write_tar(tmp_path / "in" / "a.tar", sorted(members))
    run(["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    assert [(row["caption"], row["caption_note"]) for row in all_rows(tmp_path / "out", "data")] == [
        ("a red boat", None),
        ("", "the .json file: caption: not a caption but a number: 3"),
        ("plain", None),
    ]
