"""Storage that fails while samples are read: the error is raised, and does not become rows."""

import errno
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from pipelines.readers.references import read_ahead
from pipelines.readers.sources import ImageShards
from pipelines.samples import Columns
from pipelines.storage.errors import StorageError
from pipelines.storage.store import FsspecStore
from tests.support.inputs import write_folder, write_parquet, write_tar
from tests.support.reading import read_all


@dataclass(frozen=True)
class Failing(FsspecStore):
    """A store that fails at some read of some files."""

    make_error: Callable[[], Exception] = OSError
    suffix: str = ""
    reads: int = 0

    def open_read(self, uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
        file = super().open_read(uri, block_size_bytes)
        return io.BufferedReader(_FailingFile(file, self)) if uri.endswith(self.suffix) else file


class _FailingFile(io.RawIOBase):
    def __init__(self, file: IO[bytes], store: Failing) -> None:
        self.file, self.store, self.left = file, store, store.reads

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.store.make_error()
        content = self.file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


@pytest.mark.parametrize("error", [StorageError("away", "unreachable"), OSError(errno.EIO, "broken disk")])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".parquet", ".jsonl"])
@pytest.mark.parametrize("reads", [0, 1, 2])
def test_a_storage_that_fails_is_no_damage(tmp_path: Path, error: OSError, suffix: str, reads: int) -> None:
    large = [random.Random(number).randbytes(20_000) for number in range(40)]
    members = [(f"{number:02d}.jpg", image) for number, image in enumerate(large)]
    write_tar(tmp_path / "a.tar", members)
    write_tar(tmp_path / "a.tar.gz", members, compress=True)
    write_parquet(tmp_path / "a.parquet", {"image": large, "key": [name for name, _ in members]}, row_group=4)
    write_folder(tmp_path, {"a.jsonl": b"\n".join(b'{"image": "absent.jpg"}' for _ in range(10_000))})
    source = ImageShards(columns=Columns(), store=Failing(make_error=lambda: error, suffix=suffix, reads=reads))
    with pytest.raises(OSError) as caught:
        read_all(source, tmp_path / f"a{suffix}")
    assert caught.value is error


def test_results_come_in_order_when_one_fails() -> None:
    def read(number: int) -> int:
        if number == 3:
            raise StorageError("away")
        return number

    found = []
    with pytest.raises(StorageError):
        for number in read_ahead(read, range(6)):
            found.append(number)
    assert found == [0, 1, 2]
