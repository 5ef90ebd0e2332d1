"""Finding the files of an engine on this machine, and fetching those that are elsewhere.

Tested in tests/pipelines/tasks/test_engine_model.py.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines import EngineSpec
from pipelines.storage.file_info import short_hash
from pipelines.tasks.model import ModelFiles
from pipelines.tasks.model_cache import is_remote, local_copy, local_copy_of_files
from pipelines.tasks.model_options import named_in_errors
from unicon.files.folder import EMBEDDED_NAMES, find_folder
from unicon.files.hashes import quick_fingerprint
from unicon.files.hub import HubId, expanded, fetch_files, files_in_hub, is_local, parse_hub_id
from unicon.files.inspection import check_model

Choose = Callable[[Collection[str]], Collection[str]]
"""Chooses the files to load among the paths of all files of a folder; raises FileNotFoundError or ValueError."""


@dataclass(frozen=True, kw_only=True)
class EngineFiles:
    """The files of an engine on this machine."""

    folder: Path | None
    """The folder of the weights; None for an engine without weights."""
    files: tuple[tuple[str, Path], ...] = ()
    """(name, file) of what is loaded from the folder."""
    base: ModelFiles | None = None
    """The base model of an engine that makes images."""

    def all(self) -> list[tuple[str, Path]]:
        """Return (name, file) of everything that is loaded."""
        return [*self.files, *((f"base/{name}", path) for name, path in (self.base.weights() if self.base else ()))]

    def fingerprint(self) -> str:
        """Return a hash that changes with the files, without reading every file whole."""
        return short_hash(quick_fingerprint(self.all()), self.base.fingerprint() if self.base else "")


def find_engine(spec: EngineSpec) -> EngineFiles:
    """Find the files of an engine, and check them by their headers.

    Raises:
        SettingError: A file is absent, damaged, or something else.
    """
    with named_in_errors("--engine"):
        folder = None if spec.weights is None else weights_folder(spec.weights, partial(spec.family.choose, spec.name))
        files = () if folder is None else tuple(spec.files(folder))
    base = None if spec.base is None else _base(spec.base)
    if folder is not None and base is not None:
        with named_in_errors("--engine, --model"):
            spec.family.check_base(folder, base.folder)
    return EngineFiles(folder=folder, files=files, base=base)


def absolute_place(place: str) -> str:
    """Return a local path that holds from any working folder; URIs, hub ids and embedded names are unchanged."""
    if place in EMBEDDED_NAMES or "://" in place or not is_local(place):
        return place
    return os.path.abspath(os.path.expanduser(place))


def weights_folder(place: str, choose: Choose) -> Path:
    """Return the local folder of weights at a path, a URI or a hub id, where `choose` names the files to load.

    Raises:
        OSError, ValueError: It does not exist, or cannot be read.
    """
    if is_remote(place):
        return local_copy_of_files(place, choose)
    folder = expanded(place)
    if folder.is_dir():
        return folder
    name = None if is_local(place) else parse_hub_id(place)
    if name is None:
        raise FileNotFoundError(
            "weights are in a folder, at a URI, or in a hub repository OWNER/NAME; there is no folder "
            f"{place[:200]!r}. Correct the path."
        )
    return fetch_files(name, _patterns(choose, name), "repository") / name.inside


def _patterns(choose: Choose, name: HubId) -> list[str]:
    """Return the files to fetch from the hub; everything if it cannot be listed, which then is in the cache or not."""
    listed = files_in_hub(name)
    if listed is None:
        return ["*"]
    above = f"{name.inside}/" if name.inside else ""
    there = [file.removeprefix(above) for file in listed if file.startswith(above)]
    return [above + file for file in choose(there)]


def _base(place: str) -> ModelFiles:
    with named_in_errors("--model"):
        folder = find_folder(local_copy(place))
        check_model(folder, None)
    return ModelFiles(folder, {})
