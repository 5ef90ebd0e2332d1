"""Images inside texts: base64 and `data:` URIs, in every format and role."""

import base64
import json
import urllib.parse
from pathlib import Path

import pytest

from pipelines.dataset.layout import Listing
from pipelines.planning.plan import make_plan
from pipelines.readers.inline_images import inline_image
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns
from tests.support.estimating import estimate
from tests.support.inputs import encoded_image, write_folder, write_parquet
from tests.support.reading import assert_all_accounted

IMAGES = [encoded_image(number, size=(12, 10)) for number in range(4)]


def inline(content: bytes) -> dict[str, str]:
    """Return an image in every spelling."""
    standard = base64.b64encode(content).decode()
    return {
        "standard": standard,
        "lines": base64.encodebytes(content).decode(),
        "URL-safe": base64.urlsafe_b64encode(content).decode().rstrip("="),
        "spaces around": f" \n{standard}\t",
        "data": f"data:image/jpeg;base64,{standard}",
        "data with parameters": f"DATA:image/jpeg;name=a.jpg;base64,{standard}",
        "data, percent in base64": f"data:;base64,{urllib.parse.quote(standard, safe='')}",
        "data, percent": f"data:image/jpeg,{urllib.parse.quote_from_bytes(content)}",
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "ICO"])
def test_base64_and_data_uris_are_told_from_names(kind: str) -> None:
    for size in ((4, 4), (90, 90)):
        content = encoded_image(1, size=size, kind=kind)
        assert {inline_image(text) for text in inline(content).values()} == {content}


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "/work/data/abc", "/9j/photos/a.jpg", "s3://b/9j/4AAQ", "iVBORw0KGgo.png", "abcd" * 40, "", "a\0b"],
)
def test_names_stay_names(name: str) -> None:
    assert inline_image(name) is None


def test_images_in_rows_are_read_from_every_format_and_role(tmp_path: Path) -> None:
    spelled = list(inline(IMAGES[0]).values())
    others = [{"bytes": spelled[0]}, {"path": spelled[4]}]
    broken = [spelled[4][:-7] + "!", "data:image/png;base64", "A" * 10_000 + "!", "data:image/jpeg;base64,"]
    texts = [*spelled, *broken]
    write_parquet(tmp_path / "a.parquet", {"image": texts, "mask": texts})
    lines = [json.dumps({"image": value, "mask": value}) for value in [*texts, *others]]
    write_folder(tmp_path, {"b.jsonl": "\n".join(lines).encode()})
    for name, count in (("a.parquet", len(texts)), ("b.jsonl", len(lines))):
        ran = estimate([tmp_path / name], tmp_path / f"out-{name}", Columns(image="mask"), max_error_rate=1)
        assert_all_accounted(ran, count)
        assert len(ran.errors) == len(broken)
        assert {row["image"]["bytes"] for row in ran.rows} == {IMAGES[0]}
        assert all(len(reason) < 200 for reason in ran.reasons.values())


def test_conditions_and_masks_may_be_inline_too(tmp_path: Path) -> None:
    spelled = list(inline(IMAGES[0]).values())
    row = {"image": spelled[0], "mask": spelled[4], "depth": spelled[7]}
    write_parquet(tmp_path / "a.parquet", {name: [value] for name, value in row.items()})
    write_folder(tmp_path, {"b.jsonl": json.dumps(row).encode()})
    source = ImageShards(
        columns=Columns(image="image", media=("mask", "depth")),
        media_options={name: f"--condition {name}" for name in ("mask", "depth")},
    )
    for name in ("a.parquet", "b.jsonl"):
        measured = source.measure(source.find([str(tmp_path / name)], "/nowhere"), "/nowhere", None)
        (chunk,) = make_plan(measured, Listing(finished=(), remains=()), "c" * 10, 50).chunks
        (sample,) = source.read(chunk)
        assert sample.problem is None
        assert {sample.image, *(media.content for media in sample.media.values())} == {IMAGES[0]}
        assert set(sample.media) == {"mask", "depth"}


def test_bytes_may_be_base64_too(tmp_path: Path) -> None:
    """Programs that have read images from JSON write them so."""
    png = encoded_image(3, size=(12, 10), kind="PNG")
    values = [
        base64.b64encode(IMAGES[0]), base64.encodebytes(png), b"data:image/jpeg;base64," + base64.b64encode(IMAGES[1]),
        base64.b64encode(IMAGES[2])[:-6] + b"**", b"data:nothing",
    ]  # fmt: skip
    ran = estimate([write_parquet(tmp_path / "a.parquet", {"image": values})], tmp_path / "out")
    assert [row["image"]["bytes"] for row in ran.rows] == [IMAGES[0], png, IMAGES[1]]
    assert_all_accounted(ran, 5)
