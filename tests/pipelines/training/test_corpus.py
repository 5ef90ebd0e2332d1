"""Planning a corpus: rows, weights, predicates, held-out rows, formats, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import SettingError
from pipelines.readers.chunks import read_chunk
from pipelines.training import groups
from pipelines.training.conditions import CorpusCondition
from pipelines.training.corpus import Corpus, PlannedCorpus, plan_corpus
from tests.support.corpora import corpus_row, write_corpus
from tests.support.inputs import write_tar

CANNY = CorpusCondition(name="canny", kind="edge")
DEPTH = CorpusCondition(name="depth", kind="depth")


def planned(*places: Path, **options) -> PlannedCorpus:
    conditions = options.pop("conditions", (CANNY, DEPTH))
    corpus = Corpus(uris=tuple(map(str, places)), conditions=conditions, **options)
    return plan_corpus(corpus, str(places[0].parent / "work"))


def keys(plan: PlannedCorpus, held_out: bool = False) -> list[str]:
    rows = plan.held_out if held_out else zip(plan.groups, plan.columns_of, strict=True)
    return [sample.key for group, at in rows for sample in read_chunk(group.chunk, plan.columns[at])]


def test_every_row_is_trained_or_held_out(tmp_path: Path) -> None:
    plan = planned(write_corpus(tmp_path / "corpus"))
    trained, held_out = keys(plan), keys(plan, held_out=True)
    assert sorted([*trained, *held_out]) == [f"row-{number:03d}" for number in range(48)]
    assert len(held_out) == 6 and plan.rows == 42 and {group.rows for group in plan.groups} == {6, 8}
    assert plan.left_out == {}
    assert plan.fingerprint == planned(tmp_path / "corpus").fingerprint
    assert plan.fingerprint != planned(tmp_path / "corpus", weight="rating").fingerprint


def test_weights_and_predicates_select_rows(tmp_path: Path) -> None:
    place = write_corpus(tmp_path / "corpus", rating={0: None, 1: 0.0, 2: -1.0, 4: 5.0})
    plan = planned(place, weight="rating", where=("rating!=3",))
    assert plan.left_out == {"a negative weight": 1, "weight 0": 1}  # a predicate never matches null
    rows = [*zip(plan.groups, plan.columns_of, strict=True), *plan.held_out]
    weights = {
        sample.key: group.weight(sample.position)
        for group, at in rows
        for sample in read_chunk(group.chunk, plan.columns[at])
    }
    assert weights == {f"row-{n:03d}": 5.0 if n == 4 else n % 3 + 1.0 for n in range(48) if n % 3 != 2 and n > 2}
    assert planned(place, weight="rating").left_out == {
        "no weight (null or NaN)": 1, "a negative weight": 1, "weight 0": 1,
    }  # fmt: skip


def test_large_row_groups_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_corpus(tmp_path / "corpus", files=1)
    assert len(planned(place).groups) == 2
    monkeypatch.setattr(groups, "GROUP_BYTES", 2000)
    cut = planned(place, where=("rating>=1",))
    assert len(cut.groups) > 6
    assert sorted([*keys(cut), *keys(cut, held_out=True)]) == [f"row-{number:03d}" for number in range(48)]


def test_tars_have_their_own_names_and_may_be_beside_parquet(tmp_path: Path) -> None:
    members = []
    for number in range(100, 180):
        row = corpus_row(number)
        for name, content in (("png", row["image"]), ("canny.png", row["canny"]), ("depth.png", row["depth"])):
            members.append((f"{row['key']}.{name}", content["bytes"]))
    tar = write_tar(tmp_path / "more" / "0.tar", members)
    plan = planned(write_corpus(tmp_path / "corpus"), tar.parent)
    assert {columns.media for columns in plan.columns} == {("canny", "depth"), ("canny.png", "depth.png")}
    assert len(keys(plan)) + len(keys(plan, held_out=True)) == 128
    with pytest.raises(SettingError, match="--weight-column 'rating' selects rows by columns of Parquet files"):
        planned(tmp_path / "corpus", tar.parent, weight="rating")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": (CorpusCondition(name="pose", kind="pose"),)}, "--condition pose: column pose is not in"),
        ({"conditions": (CorpusCondition(name="pose", kind="pose", column="rating"),)}, "has type float"),
        ({"weight": "stars"}, "--weight-column 'stars' is not in"),
        ({"weight": "caption"}, "weights are numbers of at least 0. Columns of numbers: rating"),
        ({"caption": "text"}, "--caption-column 'text' is not in"),
        ({"image": "picture"}, "--image-column 'picture' is not in"),
        ({"where": ("rating>100",)}, "training needs at least two rows"),
        ({"where": ("rating",)}, "is not a condition"),
    ],
)
def test_what_a_corpus_lacks_is_said(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(SettingError) as error:
        planned(write_corpus(tmp_path / "corpus", rows=12), **options)
    assert message in str(error.value)


def test_places_that_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--corpus"):
        planned(tmp_path / "absent")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(corpus_row(0)["image"]["bytes"])
    with pytest.raises(SettingError, match="--condition canny"):
        planned(tmp_path / "photos")


def test_a_group_keeps_some_of_its_rows(tmp_path: Path) -> None:
    group = planned(write_corpus(tmp_path / "corpus"), weight="rating").groups[-1]
    half = group.keeping(np.arange(group.rows) % 2 == 0)
    assert half is not None and half.rows == -(-group.rows // 2)
    assert [half.weight(at) for at in half.chunk.positions] == [group.weight(at) for at in half.chunk.positions]
    assert group.keeping(np.zeros(group.rows, bool)) is None
