"""Comparison of maps: keys of every type, and files that are not what they should be."""

import base64
import io
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.errors import SettingError
from pipelines.evaluation.join import Join
from pipelines.evaluation.likeness import Likeness, compare_maps

COUNT = 3


def maps() -> list[bytes]:
    found = []
    for number in range(COUNT):
        buffer = io.BytesIO()
        levels = np.random.default_rng(number).integers(0, 65535, (8, 8)).astype(np.uint16)
        Image.fromarray(levels).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def write(path: Path, keys: Any, values: Any) -> str:
    pq.write_table(pa.table({"key": keys, "depth": values}), path)
    return str(path)


def compared(predictions: str, truth: str) -> Likeness:
    return compare_maps(Join(condition="depth", predictions=predictions, truth=truth))


MEDIA = pa.array([{"bytes": content, "path": None} for content in maps()])
TEXTS = ["one", "two", "three"]
UUIDS = [uuid.UUID(int=number) for number in range(COUNT)]


@pytest.mark.parametrize(
    ("keys", "texts", "values"),
    [
        (pa.array([text.encode() for text in TEXTS]), TEXTS, pa.array(maps())),
        (pa.array(TEXTS, pa.string_view()), TEXTS, pa.array(maps(), pa.binary_view())),
        (pa.array(TEXTS).dictionary_encode(), TEXTS, pa.array([base64.b64encode(each).decode() for each in maps()])),
        (pa.array([each.bytes for each in UUIDS], pa.uuid()), [str(each) for each in UUIDS], MEDIA),
        (pa.array([1, 2, 3]), ["1", "2", "3"], MEDIA),
    ],
)
def test_keys_and_maps_of_every_type_find_their_partner(
    keys: pa.Array, texts: Sequence[str], values: pa.Array, tmp_path: Path
) -> None:
    found = compared(write(tmp_path / "a.parquet", keys, values), write(tmp_path / "b.parquet", pa.array(texts), MEDIA))
    assert found.matched == pytest.approx([1.0] * COUNT)
    assert not found.join.without_estimate and not found.join.without_truth


@pytest.mark.parametrize("side", ["--predictions", "--truth"])
@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        (pa.array(["one", None, "three"]), MEDIA, "column key is null"),
        (pa.array([["one"], ["two"], ["three"]]), MEDIA, "a key is one text or number, this one is a list"),
        (pa.array(TEXTS), pa.array([*maps()[:2], None]), "row 'three' has no depth: column depth is null or empty"),
        (pa.array(TEXTS), pa.array([*maps()[:2], b"junk"]), "the depth of 'three' cannot be decoded"),
        (pa.array(TEXTS), pa.array([1, 2, 3]), "'depth' of .* has type int64"),
        (None, None, "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_named(side: str, keys: Any, values: Any, message: str, tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", pa.array(TEXTS), MEDIA)
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1 junk PAR1") if keys is None else write(bad, keys, values)
    predictions, truth = (str(bad), good) if side == "--predictions" else (good, str(bad))
    with pytest.raises(SettingError, match=f"^{side}.*{message}"):
        compared(predictions, truth)


def test_a_doubled_column_is_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", pa.array(TEXTS), MEDIA)
    pq.write_table(pa.table([pa.array(TEXTS), MEDIA, MEDIA], ["key", "depth", "depth"]), tmp_path / "bad.parquet")
    with pytest.raises(SettingError, match="^--predictions: column 'depth' is ambiguous: .* has 2 columns"):
        compared(str(tmp_path / "bad.parquet"), good)
