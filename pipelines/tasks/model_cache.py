"""Local copies of models, adapters and LoRAs in object stores, one for each version of the files that are loaded."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from pipelines import storage
from pipelines.errors import SettingError
from unicon.files.adapters import OFFICIAL_FILES, PICKLE_FILE
from unicon.files.folder import SINGLE_FILES
from unicon.files.foreign import WANTED_MODEL, check_family
from unicon.files.hashes import cache_folder
from unicon.files.weights import files_to_load

COPIED = frozenset({".safetensors", ".json"})
"""Extensions of the files of adapters and LoRAs."""
UNET_CONFIG = "unet/config.json"
VAE = "vae"

Files = Mapping[str, storage.FileInfo]
"""Path below a root -> file."""


def local_copy(place: str, kind: str | None = None) -> str:
    """Return the local path of a model, an adapter, a LoRA or an autoencoder; local paths and hub ids are unchanged.

    Only files that are loaded are copied: one variant of the weights, and from a repository of adapters the folder of
    the `kind` of condition, or from a model folder its vae/ if that is the `kind`. Copies are complete or absent, and
    another version of the files gets another copy.

    Raises:
        SettingError: There is nothing to load at the URI.
        OSError: The URI cannot be read.
    """
    if not is_remote(place):
        return place
    root, there = _listed(place)
    inside = _folder_of_kind(there, kind)
    if inside:
        root = storage.join(root, inside)
        there = {name.removeprefix(f"{inside}/"): info for name, info in there.items() if name.startswith(f"{inside}/")}
    files = _loaded(place, there)
    if not files:
        raise SettingError(f"{place!r} holds no model: no files in safetensors or JSON. Check the URI.")
    copy = _place_of(root, files)
    if not copy.exists():
        _copy_all(files, copy, check_configs)
    return str(copy)


def local_copy_of_files(place: str, choose: Callable[[Collection[str]], Iterable[str]]) -> Path:
    """Return the local copy of the files at a URI whose names below it are chosen.

    Args:
        place: The URI of a folder.
        choose: Receives the names of all files, and returns those to copy; its exceptions are passed on.

    Raises:
        OSError: The URI cannot be read.
    """
    root, there = _listed(place)
    files = {name: there[name] for name in sorted(choose(there))}
    copy = _place_of(root, files)
    if not copy.exists():
        _copy_all(files, copy)
    return copy


def _listed(place: str) -> tuple[str, Files]:
    """Return the normalized URI, and the files below it by name."""
    root = storage.normalize(place)
    return root, {info.uri.removeprefix(root).lstrip("/"): info for info in storage.list_files(root)}


def _place_of(root: str, files: Files) -> Path:
    """Return the place of the copy of these versions of files."""
    version = storage.short_hash(root, *(f"{info.uri} {info.fingerprint}" for info in files.values()))
    return cache_folder() / "models" / version / PurePosixPath(root).name


def check_configs(folder: Path) -> None:
    """Check the copied configurations of a model, which are copied first. Raises as `check_family`."""
    if (folder / UNET_CONFIG).is_file():
        check_family(folder)


def _folder_of_kind(there: Files, kind: str | None) -> str | None:
    """Return the folder of a repository of adapters that is named after the kind, if there is exactly one; or vae/."""
    if kind == VAE and f"{VAE}/config.json" in there:
        return VAE
    ending = f"/{kind}/{PICKLE_FILE}"
    found = [name.removesuffix(f"/{PICKLE_FILE}") for name in there if f"/{name}".endswith(ending)]
    return found[0] if kind and PICKLE_FILE not in there and len(found) == 1 else None


def is_remote(place: str) -> bool:
    """Return whether a place is in an object store."""
    return "://" in place and storage.protocol(place) != "file"


def check_is_folder(place: str) -> None:
    """Check, before it is copied, that a model at a URI is not a single file. Raises SettingError."""
    if is_remote(place) and PurePosixPath(place).suffix in SINGLE_FILES:
        raise SettingError(
            f"{WANTED_MODEL}; {place} is a single file. Copy it to this machine and pass the copy to "
            "learn how to convert it."
        )


def _loaded(place: str, there: Files) -> Files:
    """Return the files that are loaded: of a model folder, an official adapter, or single files."""
    if UNET_CONFIG in there:
        wanted = files_to_load(there)
    elif PICKLE_FILE in there:
        wanted = {name for name in OFFICIAL_FILES if name in there}
    elif "model_index.json" in there:
        folders = sorted({name.split("/")[0] for name in there if "/" in name})
        raise SettingError(f"{WANTED_MODEL}; {place} has no {UNET_CONFIG}, but {', '.join(folders)}. Check the URI.")
    else:
        wanted = {name for name, info in there.items() if "/" not in name and PurePosixPath(info.uri).suffix in COPIED}
        if not any(PurePosixPath(there[name].uri).suffix == ".safetensors" for name in wanted):
            _refuse_folder_above(place, there)
    return {name: there[name] for name in sorted(wanted)}


def _refuse_folder_above(place: str, there: Files) -> None:
    """Raise SettingError with the folders that have files to load, instead of copying everything below `place`."""
    ends = (f"/{UNET_CONFIG}", f"/{PICKLE_FILE}", ".safetensors")
    folders = sorted({name.split("/")[0] for name in there if "/" in name and name.endswith(ends)})
    if folders:
        raise SettingError(
            f"{place!r} holds no model, adapter or LoRA itself, but folders that may: {', '.join(folders[:5])}. Name "
            "that folder or file."
        )


def _copy_all(files: Files, copy: Path, check: Callable[[Path], None] = lambda folder: None) -> None:
    """Copy files to a temporary folder and rename it, since another process may make the same copy.

    Configurations are copied and checked first, so that another kind of model is refused before its weights are read.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        place = Path(folder, copy.name)
        configs = [name for name in files if name.endswith(".json")]
        for name in configs:
            _copy(files[name], place / name)
        check(place)
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
