"""Marks and tombstones: either the writer of a version wins or the run that removes it."""

from pathlib import Path

import pytest

from pipelines.dataset import layout
from pipelines.dataset.marks import TOMBSTONE, is_marked, is_removed, remove_unmarked, write_mark
from pipelines.samples import STEM as STEM_PATTERN
from pipelines.samples import Chunk, chunk_name, version_stem
from pipelines.storage.store import FILES

NAME = chunk_name("a", "/in/a.tar", "b" * 16, 0, 10, "c" * 16)
STEM = version_stem(NAME, 10, ())
MARK = b'{"shard": "/in/a.tar", "files": {}}'


@pytest.fixture
def mark(tmp_path: Path) -> str:
    FILES.publish(layout.data_uri(str(tmp_path), STEM), b"rows")
    return layout.mark_uri(str(tmp_path), STEM)


def test_a_version_that_is_marked_first_stays(tmp_path: Path, mark: str) -> None:
    assert write_mark(FILES, mark, MARK)
    assert not remove_unmarked(FILES, mark)
    assert is_marked(FILES, mark)
    assert [version.stem for version in layout.list_output(str(tmp_path)).finished] == [STEM]


def test_a_version_that_is_removed_first_is_never_marked(tmp_path: Path, mark: str) -> None:
    assert remove_unmarked(FILES, mark)
    assert remove_unmarked(FILES, mark), "another run may remove it, too"
    assert not write_mark(FILES, mark, MARK)
    assert is_removed(FILES, mark)
    assert not layout.is_published(str(tmp_path), _chunk(), "parquet")
    listing = layout.list_output(str(tmp_path))
    assert not listing.finished
    (remains,) = listing.remains
    assert (remains.mark_uri, remains.marks) == ("", []), "its files are removed, the tombstone stays"
    FILES.remove(layout.data_uri(str(tmp_path), STEM))
    assert layout.list_output(str(tmp_path)) == layout.Listing(finished=(), remains=())


def test_a_removal_that_was_killed_before_the_tombstone_removes_nothing(tmp_path: Path, mark: str) -> None:
    FILES.publish(mark.replace("/done/", "/removed/"), b"")
    assert write_mark(FILES, mark, MARK)
    assert [version.stem for version in layout.list_output(str(tmp_path)).finished] == [STEM]


@pytest.mark.parametrize("damaged", [b"", MARK[:5]])
def test_a_damaged_mark_is_written_again(mark: str, damaged: bytes) -> None:
    FILES.publish(mark, damaged)
    assert write_mark(FILES, mark, MARK)
    assert FILES.read_bytes(mark) == MARK != TOMBSTONE


def test_names_of_removed_versions_are_not_used_again() -> None:
    stems = {version_stem(NAME, 8, (1, 2), (), removals) for removals in range(3)}
    assert len(stems) == 3
    assert all(STEM_PATTERN.fullmatch(stem) for stem in stems)
    assert version_stem(NAME, 8, (1, 2)) in stems


def _chunk() -> "layout.Chunk":
    return Chunk(name=NAME, shard_uri="/in/a.tar", shard_format="tar", start=0, stop=10)
