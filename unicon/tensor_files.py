"""Headers of safetensors files, read without their tensors, and what a file is that is not one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor names and shapes."""
_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself. Run `git lfs pull` where it was cloned, "
     "or download the file"),
    (b"<", "is a web page (HTML or XML), not the file itself. Download the file, not the page that shows it"),
    (b"{", "is text (JSON), not the file itself. Download the file again"),
    (b"PK\x03\x04", "is a PyTorch pickle. Convert it to safetensors"),
    (b"\x80", "is a PyTorch pickle. Convert it to safetensors"),
    (b"GGUF", "is a GGUF file. Give the weights in safetensors"),
)  # fmt: skip
"""First bytes of what users take for weights."""


class Header(NamedTuple):
    """What a safetensors file holds."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Names, shapes and metadata of a safetensors file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else, or damaged; the message says what it is and what to do.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder where a .safetensors file is wanted. Name the file.")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}. Correct the path.")
    try:
        with safe_open(str(path), framework="numpy") as file:
            names = file.keys()
            return Header({name: tuple(file.get_slice(name).get_shape()) for name in names}, file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} {what_is_wrong(path) or f'is no safetensors file ({error})'}.") from error


def what_is_wrong(path: Path) -> str | None:
    """Why a file is no whole safetensors file, as the rest of a sentence; None when nothing is recognized."""
    size = path.stat().st_size
    if size == 0:
        return "is empty: its download or copy failed. Get it again"
    with path.open("rb") as file:
        start = file.read(64)
        for first, text in _STARTS:
            if start.lstrip().startswith(first):
                return text
        length = int.from_bytes(start[:8], "little")
        if size < 8 or not 2 <= length <= 100_000_000 or start[8:9] != b"{":
            return "is no safetensors file. Check where it comes from"
        file.seek(8)
        header = file.read(length)
    return _damage(header, length, size)


def _damage(header: bytes, length: int, size: int) -> str:
    """What is wrong with a file that begins as a safetensors file does."""
    if len(header) < length:
        return f"is cut short: it has {size:,} bytes, and its header alone {length + 8:,}. Get it again"
    try:
        entries = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        return "has a damaged header. Get it again"
    if 8 + length + end > size:
        return f"is cut short: it has {size:,} bytes of {8 + length + end:,}. Get it again"
    return "is damaged. Get it again"


def read_json(path: Path) -> dict:
    """The object in a small JSON file.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it holds something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}. The folder is incomplete; get it again.") from None
    except (ValueError, UnicodeDecodeError) as error:
        what = what_is_wrong(path) if not path.read_bytes().lstrip().startswith(b"{") else None
        raise ValueError(f"{path} {what or f'is no valid JSON ({error}). Get it again'}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object. Get it again.")
    return value
