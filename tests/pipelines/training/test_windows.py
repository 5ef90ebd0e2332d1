"""Reading and decoding windows: the same rows and parts for any number of workers and any first step; bad rows."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.errors import FlowError
from pipelines.training.checkpoints import StoredCheckpoints
from pipelines.training.conditions import CorpusCondition
from pipelines.training.corpus import Corpus, plan_corpus
from pipelines.training.packed import TOLD, unpacked_rows
from pipelines.training.source import StreamedBatches
from pipelines.training.steps import CorpusSteps
from pipelines.training.windows import UnusableWindowError, WindowReader
from tests.support.corpora import corpus_row, png, write_corpus
from unicon.training.views import ViewedRow, Views

CONDITIONS = (CorpusCondition(name="canny", kind="edge"), CorpusCondition(name="depth", kind="depth"))


def steps_of(folder: Path, steps: int = 30, batch_size: int = 5, weight: str | None = None, **views) -> CorpusSteps:
    corpus = Corpus(uris=(str(folder),), conditions=CONDITIONS, weight=weight)
    choice = {"aspect_buckets": True, **views}
    return CorpusSteps(
        corpus=plan_corpus(corpus, str(folder.parent / "work")),
        reader=WindowReader(
            names=("canny", "depth"), kinds=("edge", "depth"), batch_size=batch_size, seed=1, max_pixels=10_000,
            views=Views(resolution_px=32, multiple=8, **choice),
        ),
        checkpoints=StoredCheckpoints(str(folder.parent / "work")),
        steps=steps,
    )  # fmt: skip


def tables(steps: CorpusSteps, world_size: int = 1, first_step: int = 0) -> Iterator[pa.Table]:
    for task in steps.tasks_from(first_step):
        for table in steps.reader.read(task, world_size):
            yield steps.reader.decode(table)


def rows_by_step(steps: CorpusSteps, world_size: int = 1, first_step: int = 0) -> dict[int, list[ViewedRow]]:
    found: dict[int, list[ViewedRow]] = {}
    for table in tables(steps, world_size, first_step):
        found.setdefault(table.column("step")[0].as_py(), []).extend(unpacked_rows(table))
    return found


def are_equal(one: ViewedRow, other: ViewedRow) -> bool:
    same = (one.key, one.caption, one.weight, one.mirrored) == (other.key, other.caption, other.weight, other.mirrored)
    arrays = [(one.image, other.image), *((one.maps[name], other.maps[name]) for name in one.maps)]
    return same and all(np.array_equal(a, b) for a, b in arrays)


def test_rows_depend_neither_on_the_workers_nor_on_where_training_begins(tmp_path: Path) -> None:
    steps = steps_of(write_corpus(tmp_path / "corpus"), weight="rating")
    alone, together, resumed = rows_by_step(steps), rows_by_step(steps, 2), rows_by_step(steps, 3, first_step=17)
    assert list(alone) == list(together) == list(range(30)) and list(resumed) == list(range(17, 30))
    for step, rows in alone.items():
        assert len(rows) == 5 and len({row.size for row in rows}) == 1
        for others in (together[step], resumed.get(step, rows)):
            assert all(map(are_equal, rows, others))
    trained = sorted({row.key for rows in alone.values() for row in rows})
    assert len(trained) == steps.corpus.rows == 42


def test_maps_keep_their_precision_and_their_place(tmp_path: Path) -> None:
    steps = steps_of(write_corpus(tmp_path / "corpus"), random_crop=False, flip_probability=0.0)
    row = rows_by_step(steps)[0][0]
    assert (row.maps["canny"].dtype, row.maps["depth"].dtype) == (np.uint8, np.uint16)
    assert row.image.shape[:2] == row.maps["depth"].shape == row.size[::-1]
    gray = np.asarray(Image.fromarray(row.image).convert("L")).astype(float)
    assert np.corrcoef(gray.flat, row.maps["depth"].flat)[0, 1] > 0.99


def test_random_shapes_change_from_step_to_step(tmp_path: Path) -> None:
    found = rows_by_step(steps_of(write_corpus(tmp_path / "corpus"), aspect_buckets=False))
    sizes = [rows[0].size for rows in found.values()]
    assert len(set(sizes)) > 2 and all(len({row.size for row in rows}) == 1 for rows in found.values())


def test_bad_rows_are_told_and_replaced_or_weigh_nothing(tmp_path: Path) -> None:
    good = corpus_row(0)["image"]["bytes"]
    broken, tall = {"bytes": good[:-60], "path": "b.png"}, {"bytes": png(Image.new("L", (30, 90))), "path": "t.png"}
    place = write_corpus(
        tmp_path / "corpus", image={20: {"bytes": b"no image", "path": "x"}, 21: broken},
        canny={22: None, 23: tall}, caption={24: "", 26: None},
    )  # fmt: skip
    told: list[dict] = []
    steps = steps_of(place, steps=9)
    rows = [row for table in tables(steps) for row in unpacked_rows(table)]
    for table in tables(steps):
        told.append(json.loads(table.column(TOLD)[0].as_py()))
    problems = dict(problem for each in told for problem in each.get("problems", []))
    assert problems.keys() == {f"row-{number:03d}" for number in (20, 21, 22, 23)}
    assert "image is not an image that Pillow can read" in problems["row-020"]
    assert "broken image" in problems["row-021"]
    assert "column canny is null" in problems["row-022"]
    assert "30 x 90 pixels, another shape than its image" in problems["row-023"]
    assert sorted(told[0]["without_caption"]) == ["row-024", "row-026"]
    assert len(rows) == 45 and {row.key for row in rows}.isdisjoint({"row-020", "row-022", "row-023"})
    black = [row for row in rows if row.key == "row-021"]
    assert black and all(row.weight == 0 and not row.image.any() for row in black)


def test_a_corpus_without_a_usable_row(tmp_path: Path) -> None:
    place = write_corpus(tmp_path / "corpus", rows=8, canny=dict.fromkeys(range(8)))
    with pytest.raises(UnusableWindowError, match="none of 7 rows that are read together can be used; the first, row-"):
        list(tables(steps_of(place)))


def test_batches_are_taken_in_the_order_of_the_steps(tmp_path: Path) -> None:
    steps = steps_of(write_corpus(tmp_path / "corpus"), steps=2)
    told: list[dict] = []
    source = StreamedBatches(tables(steps), told.append)
    batch = source.batch(0, 0, 1)
    assert (len(batch.keys), batch.maps["depth"].shape[1], len(told)) == (5, 1, 1)
    with pytest.raises(FlowError, match=r"has the rows of \(step, worker\) \(1, 0\) instead of step 0"):
        source.batch(0, 0, 1)
    with pytest.raises(FlowError, match="has ended before step 2"):
        source.batch(2, 0, 1)


def test_captions_are_one_line(tmp_path: Path) -> None:
    place = write_corpus(tmp_path / "corpus", caption=dict.fromkeys(range(48), "a\n  square"))
    assert {row.caption for rows in rows_by_step(steps_of(place, steps=3)).values() for row in rows} == {"a square"}


def test_images_are_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(corpus_row(1)["image"]["bytes"])).transpose(Image.Transpose.ROTATE_90).save(
        buffer, "PNG", exif=exif
    )
    place = write_corpus(tmp_path / "corpus", image={1: {"bytes": buffer.getvalue(), "path": "1.png"}})
    told = [json.loads(table.column(TOLD)[0].as_py()) for table in tables(steps_of(place))]
    assert not any(each.get("problems") for each in told)
