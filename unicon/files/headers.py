"""Reading headers of safetensors files without their tensors, and recognizing files that are something else.

Tested in tests/unicon/files/test_inspection.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""
_STARTS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself. Run `git lfs pull` where it was cloned, "
     "or download the file"),
    (b"<", "is a web page (HTML or XML), not the file itself. Download the file, not the page that shows it"),
    (b"{", "is text (JSON), not the file itself. Download the file again"),
    (b"PK\x03\x04", "is a PyTorch pickle. Convert it to safetensors"),
    (b"\x80", "is a PyTorch pickle. Convert it to safetensors"),
    (b"GGUF", "is a GGUF file. Give the weights in safetensors"),
)  # fmt: skip
"""First bytes of files that users mistake for weights, and what to say of them."""


class Header(NamedTuple):
    """The header of a safetensors file."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]
    dtypes: dict[str, str]
    """Tensor name -> data type as safetensors writes it, such as F16."""


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else, or damaged. The message says what it is and what to do.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder where a .safetensors file is wanted. Name the file.")
    if not path.exists():
        dead = path.is_symlink()
        raise FileNotFoundError(
            f"{path} is a symbolic link to nothing. Get what it points to again." if dead
            else f"there is no file {path}. Correct the path."
        )  # fmt: skip
    try:
        with safe_open(str(path), framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
            return Header(
                {name: tuple(each.get_shape()) for name, each in slices.items()}, file.metadata() or {},
                {name: str(each.get_dtype()) for name, each in slices.items()},
            )  # fmt: skip
    except SafetensorError as error:
        raise ValueError(f"{path} {what_is_wrong(path) or f'is no safetensors file ({error})'}.") from error


_ENDLESS = {"F64": ("<u8", 0x7FF0000000000000), "F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00),
            "BF16": ("<u2", 0x7F80)}  # fmt: skip
"""Data type -> (integer type of the same size, mask of the exponent bits). All of them are set in NaN and infinity."""


def check_floating(path: Path, header: Header, counts: Callable[[str], bool] = lambda key: True) -> None:
    """Raise ValueError for integer weights. Those of quantized models mean nothing without their scales."""
    for key, dtype in header.dtypes.items():
        if "F" not in dtype and counts(key):
            raise ValueError(
                f"Weights are floating-point numbers; {key} of {path} is {dtype}, as in quantized models. Take the "
                "file without quantization."
            )


def first_endless(path: Path) -> str | None:
    """Name of the first tensor with a value that is not finite, None where all are finite. Reads the whole file."""
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    for key, entry in json.loads(content[8:start].tobytes()).items():
        if key != "__metadata__" and entry["dtype"] in _ENDLESS:
            kind, exponent = _ENDLESS[entry["dtype"]]
            first, end = entry["data_offsets"]
            bits = np.frombuffer(content, kind, (end - first) // np.dtype(kind).itemsize, start + first)
            if bool(((bits & exponent) == exponent).any()):
                return key
    return None


def check_weights(path: Path) -> None:
    """Raise ValueError unless the weights in a file are finite floating-point numbers."""
    check_floating(path, read_header(path))
    endless = first_endless(path)
    if endless:
        raise ValueError(f"Weights are finite numbers; {endless} of {path} is not. Get the file again.")


def what_is_wrong(path: Path) -> str | None:
    """Why a file is no complete safetensors file, as the rest of a sentence; None where nothing is recognized."""
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
    """What is wrong with a file that begins like a safetensors file."""
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
    """Read the object in a small JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    try:
        value = json.loads(path.read_bytes().decode())  # UTF-8 without a byte order mark, as diffusers reads it
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}. The folder is incomplete; get it again.") from None
    except (ValueError, UnicodeDecodeError) as error:
        what = what_is_wrong(path) if not path.read_bytes().lstrip().startswith(b"{") else None
        why = (
            what
            if what and "no safetensors" not in what
            else f"is no valid JSON in UTF-8 ({str(error)[:200]}). Get it again"
        )
        raise ValueError(f"{path} {why}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object. Get it again.")
    return value
