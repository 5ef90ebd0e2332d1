"""The index of a tar that is kept in the output: reused, checked, and built again if it is damaged."""

from pathlib import Path
from typing import IO, ClassVar

import pytest

from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.samples import Columns
from pipelines.storage.store import FILES, FsspecStore
from tests.support.inputs import samples, write_tar


class Counting(FsspecStore):
    """A store that counts the opened files with a suffix."""

    opened: ClassVar[list[str]] = []

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        self.opened.append(uri)
        return super().open_read(uri, block_size_bytes)


def index_of(output: Path) -> Path:
    (path,) = (output / "_chunks" / "index").glob("*.json")
    return path


def test_a_kept_index_is_used(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(40))
    once = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    store = Counting()
    store.opened.clear()
    assert measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"), store=store) == once
    assert store.opened == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"samples": 40, "seek',
        b"[]",
        b"null",
        b'{"samples": 40}',
        b"\xff\xfe",
        b'{"samples": -1, "seek_bytes": [], "duplicates": [], "damage": "", "gzip_points": "", "compressed": false}',
        b'{"samples": 40, "seek_bytes": [0], "duplicates": [], "damage": "", "gzip_points": "", "compressed": false}',
        b'{"samples": 40, "seek_bytes": ["a", 1], "duplicates": [], "damage": "", "gzip_points": "", "compressed": 0}',
        b'{"samples": 4, "seek_bytes": [0], "duplicates": [], "damage": null, "gzip_points": "", "compressed": false}',
        b'{"samples": 4, "seek_bytes": [0], "duplicates": [], "damage": "", "gzip_points": 3, "compressed": false}',
    ],
)
def test_a_damaged_index_is_built_again(tmp_path: Path, content: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", samples(40))
    once = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    index = index_of(tmp_path / "out")
    good = index.read_bytes()
    index.write_bytes(content)
    assert measure(find_shards([str(path)]), Columns(), str(tmp_path / "out")) == once
    assert index.read_bytes() == good


def test_the_index_of_another_content_is_not_kept(tmp_path: Path) -> None:
    """Otherwise it would be used for the listed content if that came back."""
    path = write_tar(tmp_path / "a.tar", samples(3))
    (shard,) = find_shards([str(path)])
    other = write_tar(tmp_path / "b.tar", samples(5)).read_bytes()

    class Overwriting(FsspecStore):
        opened = 0

        def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
            file = super().open_read(uri, block_size_bytes)
            Overwriting.opened += 1
            if Overwriting.opened == 2:  # the first time reads the format, the second time the headers
                path.write_bytes(other)
            return file

    (found,) = measure([shard], Columns(), str(tmp_path / "out"), store=Overwriting())
    assert found.samples == 5
    assert not (tmp_path / "out").exists()


def test_an_index_is_kept_wherever_the_output_is(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", samples(3))
    output = f"memory://index-{tmp_path.name}"
    once = measure(find_shards([str(path)]), Columns(), output)
    assert len(FILES.list_uris(f"{output}/_chunks/index")) == 1
    assert measure(find_shards([str(path)]), Columns(), output) == once
