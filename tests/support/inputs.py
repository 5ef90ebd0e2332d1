"""Small real inputs: images, tars, Parquet files, folders."""

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded_image(seed: int = 0, size: tuple[int, int] = (48, 32), kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """Return an encoded image of smooth random colors."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], compress: bool = False) -> Path:
    """Write a tar with these (name, content) members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(buffer.getvalue()) if compress else buffer.getvalue())
    return path


def write_sparse_tar(path: Path, members: Sequence[tuple[str, int]]) -> Path:
    """Write a tar of (name, size) members as a sparse file, which is large but takes almost no disk space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for name, size_bytes in members:
            info = tarfile.TarInfo(name)
            info.size = size_bytes
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.seek(-(-size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, 1)
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    return path


def samples(count: int, first: int = 0, prefix: str = "") -> list[tuple[str, bytes]]:
    """Return the tar members of `count` valid samples: an image and a caption each."""
    members = []
    for number in range(first, first + count):
        members.append((f"{prefix}{number:05d}.jpg", encoded_image(number)))
        members.append((f"{prefix}{number:05d}.txt", f"caption {number}".encode()))
    return members


def write_parquet(path: Path, columns: Mapping[str, Sequence[object]], row_group: int = 10) -> Path:
    """Write a Parquet file of plain columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, row_group_size=row_group)
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def all_rows(output: Path, folder: str) -> list[dict[str, Any]]:
    """Return every row below data/ or errors/."""
    tables = [pq.ParquetFile(path).read() for path in sorted((output / folder).glob("*.parquet"))]
    return [row for table in tables for row in table.to_pylist()]
