"""Models and adapters in object stores: copied to a folder of this machine, once for each version."""

import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from pipelines import storage
from pipelines.errors import SettingError

COPIED = frozenset({".safetensors", ".json", ".txt", ".model", ".pth"})
"""Extensions of what a model is loaded from; weights in other formats stay where they are."""


def local_copy(place: str) -> str:
    """The path of a model folder or an adapter on this machine; local paths and hub ids come as they are.

    A copy is whole or not there, and another version of the files is another copy.

    Raises:
        SettingError: there is nothing to load at the URI.
        OSError: it cannot be read.
    """
    if "://" not in place or storage.protocol(place) == "file":
        return place
    root = storage.normalise(place)
    files = [info for info in storage.list_files(root) if PurePosixPath(info.uri).suffix in COPIED]
    if not files:
        raise SettingError(f"{place!r} holds no model: no files in safetensors or JSON. Check the URI.")
    version = storage.short_hash(root, *(f"{info.uri} {info.fingerprint}" for info in files))
    copy = _cache() / version / PurePosixPath(root).name
    if not copy.exists():
        _copy_all(files, root, copy)
    return str(copy)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "unicon-data" / "models"


def _copy_all(files: list[storage.FileInfo], root: str, copy: Path) -> None:
    """Beside its place first; another process that was faster has made the same."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        for info in files:
            target = Path(folder, copy.name, info.uri.removeprefix(root).lstrip("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            with storage.open_read(info.uri) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 16 << 20)
        try:
            os.rename(Path(folder, copy.name), copy)
        except OSError:
            if not copy.exists():
                raise
