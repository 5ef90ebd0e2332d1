"""Models, adapters and LoRAs in object stores: what is loaded of them is copied to this machine, once a version."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pipelines import storage
from pipelines.errors import SettingError
from unicon.files.folder import PICKLE_FILE, PUBLISHED_FILES, SINGLE_FILES, files_to_load
from unicon.files.foreign import WANTED_MODEL, check_family
from unicon.files.hashes import cache_folder

COPIED = frozenset({".safetensors", ".json"})
"""Extensions of adapters and LoRAs that are single files."""
UNET_CONFIG = "unet/config.json"

Files = Mapping[str, storage.FileInfo]
"""Path below a root -> file."""


def local_copy(place: str, kind: str | None = None) -> str:
    """The path of a model folder, an adapter or a LoRA on this machine; local paths and hub ids come as they are.

    Only what is loaded is copied: one variant of the weights, and of a repository of adapters the folder of the `kind`
    of condition. A copy is whole or not there, and another version of the files is another copy.

    Raises:
        SettingError: there is nothing to load at the URI.
        OSError: it cannot be read.
    """
    if not is_remote(place):
        return place
    root = storage.normalise(place)
    there = {info.uri.removeprefix(root).lstrip("/"): info for info in storage.list_files(root)}
    inside = _folder_of_kind(there, kind)
    if inside:
        root = storage.join(root, inside)
        there = {name.removeprefix(f"{inside}/"): info for name, info in there.items() if name.startswith(f"{inside}/")}
    files = _loaded(place, there)
    if not files:
        raise SettingError(f"{place!r} holds no model: no files in safetensors or JSON. Check the URI.")
    version = storage.short_hash(root, *(f"{info.uri} {info.fingerprint}" for info in files.values()))
    copy = cache_folder() / "models" / version / PurePosixPath(root).name
    if not copy.exists():
        _copy_all(files, copy)
    return str(copy)


def _folder_of_kind(there: Files, kind: str | None) -> str | None:
    """The only folder of a repository of adapters that is called by the kind, wherever in it."""
    ending = f"/{kind}/{PICKLE_FILE}"
    found = [name.removesuffix(f"/{PICKLE_FILE}") for name in there if f"/{name}".endswith(ending)]
    return found[0] if kind and PICKLE_FILE not in there and len(found) == 1 else None


def is_remote(place: str) -> bool:
    """Whether a place is in an object store."""
    return "://" in place and storage.protocol(place) != "file"


def check_is_folder(place: str) -> None:
    """Refuse a single file at a URI as a model, before it is copied. Raises SettingError."""
    if is_remote(place) and PurePosixPath(place).suffix in SINGLE_FILES:
        raise SettingError(
            f"{WANTED_MODEL}; {place} is a single file. Copy it here and name the copy to learn how to convert it."
        )


def _loaded(place: str, there: Files) -> Files:
    """The files that are loaded: of a model folder, a published adapter, or single files."""
    if UNET_CONFIG in there:
        wanted = files_to_load(there)
    elif PICKLE_FILE in there:
        wanted = {name for name in PUBLISHED_FILES if name in there}
    elif "model_index.json" in there:
        folders = sorted({name.split("/")[0] for name in there if "/" in name})
        raise SettingError(f"{WANTED_MODEL}; {place} has no {UNET_CONFIG}, but {', '.join(folders)}. Check the URI.")
    else:
        wanted = {name for name, info in there.items() if "/" not in name and PurePosixPath(info.uri).suffix in COPIED}
        if not any(PurePosixPath(there[name].uri).suffix == ".safetensors" for name in wanted):
            _refuse_folder_above(place, there)
    return {name: there[name] for name in sorted(wanted)}


def _refuse_folder_above(place: str, there: Files) -> None:
    """What is loaded lies deeper: say where, instead of copying all that is below. Raises SettingError."""
    ends = (f"/{UNET_CONFIG}", f"/{PICKLE_FILE}", ".safetensors")
    folders = sorted({name.split("/")[0] for name in there if "/" in name and name.endswith(ends)})
    if folders:
        raise SettingError(
            f"{place!r} holds no model, adapter or LoRA itself, but folders that may: {', '.join(folders[:5])}. Name "
            "the very folder or file."
        )


def _copy_all(files: Files, copy: Path) -> None:
    """Beside its place first; another process that was faster has made the same. Configurations come first."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        place = Path(folder, copy.name)
        configs = [name for name in files if name.endswith(".json")]
        for name in configs:
            _copy(files[name], place / name)
        if UNET_CONFIG in files:
            check_family(place)
        for name in files.keys() - {*configs}:
            _copy(files[name], place / name if name else place)
        try:
            os.rename(place, copy)
        except OSError:
            if not copy.exists():
                raise


def _copy(info: storage.FileInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with storage.open_read(info.uri) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 16 << 20)
