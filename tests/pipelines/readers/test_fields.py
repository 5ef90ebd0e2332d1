"""Plain values of samples, such as labels, from every format of shards."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import SettingError
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns
from tests.support.inputs import encoded_image, write_folder, write_parquet, write_tar
from tests.support.reading import read_all

FIELDS = ("label", "info.size", "cls")
ROWS = [{"label": "cat", "info": {"size": 3}}, {"label": None}, {"info": {"size": 4.5}}]


def write(folder: Path, kind: str) -> None:
    images = {f"{at}.jpg": encoded_image(at) for at in range(len(ROWS))}
    texts = {f"{at}.json": json.dumps(row).encode() for at, row in enumerate(ROWS)}
    classes = {"0.cls": b"7\n", "1.cls": b"007", "2.cls": b"1e999"}
    if kind == "parquet":
        columns = {"label": ["cat", None, None], "info": [row.get("info") for row in ROWS], "cls": [7, 0, None]}
        write_parquet(folder / "a.parquet", {"image": [*images.values()], **columns})
    elif kind == "jsonl":
        write_folder(folder.parent / "images", images)
        lines = [{"image": f"{folder.parent}/images/{at}.jpg", **row, "cls": 7 - at} for at, row in enumerate(ROWS)]
        write_folder(folder, {"a.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    elif kind == "tar":
        write_tar(folder / "a.tar", sorted({**images, **texts, **classes}.items()))
    else:
        write_folder(folder, {**images, **texts})


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "tar", "folder"])
def test_fields_of_every_format(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "in", kind)
    source = ImageShards(columns=Columns(fields=FIELDS))
    classes: dict[str, list[Any]] = {"parquet": [7, 0, None], "jsonl": [7, 6, 5], "tar": [7, "007", "1e999"]}
    expected = [
        {"label": "cat", "info.size": 3},
        {},
        {"info.size": 4.5},
    ]
    for at, value in enumerate(classes.get(kind, [])):
        expected[at] |= {} if value is None else {"cls": value}
    samples = read_all(source, tmp_path / "in")
    assert [dict(sample.fields) for sample in samples] == expected
    assert all(sample.problem is None for sample in samples)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "tar", "folder"])
def test_a_field_that_nothing_has_is_refused(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "in", kind)
    source = ImageShards(columns=Columns(fields=("color",)), field_options={"color": "--keep"})
    with pytest.raises(SettingError, match="color"):
        source.measure(source.find([str(tmp_path / "in")], str(tmp_path / "out")), str(tmp_path / "out"), None)
