"""The compiled code of a model in one file, so that the next process need not compile.

The file holds a line of JSON, the names of the compiled shapes and the seconds that compiling them took, and then what
`torch.compiler.save_cache_artifacts` returns. Its name depends on everything that the code depends on: the weights and
adapters of the model, the versions of torch and Triton, and the device.

Compiled code is executed, so a file is only loaded from a folder that belongs to the user and that nobody else can
write to, which by default is in the user's cache. Files within a model folder are never loaded.

Tested in tests/unicon/compilation/test_cache.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from unicon.files.hashes import cache_folder

LOGGER = logging.getLogger(__name__)

PACKAGES = ("torch", "triton", "diffusers", "transformers")
"""Packages whose versions are part of the name of a file."""


def cache_path(weights_sha256: str, device: torch.device, dtype: torch.dtype, folder: Path | None = None) -> Path:
    """The file for the code of a model on a device.

    Args:
        weights_sha256: The hash of the weights of the model and its adapters.
        device: Where the model runs.
        dtype: Data type of the model.
        folder: By default the folder `compiled` in the user's cache.
    """
    cuda = device.type == "cuda"
    hardware = (torch.cuda.get_device_name(device), torch.version.cuda) if cuda else (platform.machine(), _cpu())
    parts = [weights_sha256, str(dtype), device.type, *map(str, hardware), *map(_version, PACKAGES)]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return (folder or cache_folder() / "compiled") / f"{name}.compiled"


def load(path: Path) -> dict[str, float]:
    """Give the code of a file to the compiler, and return the names of its shapes with their seconds of compiling.

    A file that is absent, damaged or not the user's own gives nothing.
    """
    if not path.is_file():
        return {}
    if not is_own(path):
        LOGGER.warning("%s is not loaded, because others may have written it. Remove it or its folder.", path)
        return {}
    try:
        header, code = path.read_bytes().split(b"\n", 1)
        shapes = {str(name): float(seconds) for name, seconds in json.loads(header).items()}
        return shapes if torch.compiler.load_cache_artifacts(code) is not None else {}
    except Exception as error:  # the format is torch's own: whatever is wrong, compiling again is the cure
        LOGGER.warning("%s is not loaded, because it is damaged: %s", path, error)
        return {}


def save(path: Path, shapes: Mapping[str, float]) -> bool:
    """Write the code of all shapes that this process has compiled, and return whether there was something to write.

    The file is complete or absent. It is left alone if it has all these shapes. Where it cannot be written, the code is
    compiled again by the next process.
    """
    if not shapes or shapes.keys() <= _shapes(path).keys():
        return False
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(dict(shapes)).encode() + b"\n" + saved[0])
        os.replace(temporary, path)
    except OSError as error:
        LOGGER.warning("The compiled code is not kept: %s", error)
        return False
    return True


def is_own(path: Path) -> bool:
    """Whether a file and its folder belong to the user and nobody else may write to them."""
    if not hasattr(os, "getuid"):
        return True
    stats = (path.stat(), path.parent.stat())
    return all(stat.st_uid == os.getuid() and not stat.st_mode & 0o022 for stat in stats)


def _shapes(path: Path) -> dict[str, float]:
    try:
        with path.open("rb") as file:
            return json.loads(file.readline())
    except (OSError, ValueError):
        return {}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    return torch.backends.cpu.get_cpu_capability()
