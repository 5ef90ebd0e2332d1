"""The description of a captioner that travels to the actors, and which one it is.

Tested in tests/pipelines/tasks/test_captioner_model.py.
"""

import dataclasses
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from engines.captioner import PACKAGE, PROMPT, check_captioner, files_to_load, needs_prompt
from engines.files import check_file
from pipelines.errors import SettingError
from pipelines.tasks.engine_files import absolute_place, weights_folder
from pipelines.tasks.model import limit_threads
from pipelines.tasks.model_identity import at_commit, name_of
from pipelines.tasks.model_options import named_in_errors
from unicon.files.hashes import fingerprint, quick_fingerprint

OPTION = "--captioner"


class CaptionerIdentity(NamedTuple):
    """Which captioner makes the captions."""

    name: str
    """Hub id, or name of the folder."""
    weights_sha256: str
    package: str
    """Name and version of the package that runs it; not part of the configuration."""
    prompt: str
    """What it is asked; empty for a model that is not asked."""


@dataclass(frozen=True, kw_only=True)
class CaptionerModel:
    """The description of a captioner; `build` loads it."""

    place: str
    """Folder, URI or hub id."""
    prompt: str = ""
    weights_sha256: str = ""
    """The hash of all files in use, which the driver computed."""
    quick_hash: str = ""
    """What changes with the files of the driver, without reading every file whole."""
    device: str | None = None
    dtype: str | None = None
    actors_per_node: int | None = None

    def with_device(self, device: str | None, actors_per_node: int) -> "CaptionerModel":
        """Return the description for actors with this device; None is the GPU of the actor."""
        return dataclasses.replace(self, device=device, actors_per_node=actors_per_node)

    def with_work(self, rows: int | None) -> "CaptionerModel":
        """Return the description unchanged: a captioner does not depend on the number of rows."""
        return self

    def build(self) -> Any:
        """Load the captioner on this process's device.

        Raises:
            RuntimeError: The files on this machine differ from those of the driver.
        """
        from engines.captioner import load_captioner

        limit_threads(self.actors_per_node)
        folder, files = _find(self.place)
        if self.quick_hash != quick_fingerprint(files):
            raise RuntimeError(
                f"the captioner {self.place!r} on {os.uname().nodename} has other files than where the command was "
                "started. Give a URI, or copy the same files to every node."
            )
        return dataclasses.replace(
            load_captioner(folder, self.device, self.dtype, self.prompt), weights_sha256=self.weights_sha256
        )


def resolve_captioner(
    place: str, dtype: str | None, prompt: str | None = None
) -> tuple[CaptionerModel, CaptionerIdentity]:
    """Find, check and hash a captioner without loading it.

    Args:
        place: Folder, URI or hub id.
        dtype: Type of weights and computation.
        prompt: What a model for conversations is asked; None: to describe the image.

    Raises:
        SettingError: A file is missing or is something else, or the model is not asked anything.
    """
    place = absolute_place(place)
    folder, files = _find(place)
    with named_in_errors(OPTION):
        for _, path in files:
            check_file(path)
        check_captioner(folder)
    if prompt is not None and not needs_prompt(folder):
        raise SettingError(f"--caption-prompt: {place} describes images without being asked. Remove the option.")
    asked = (prompt or PROMPT) if needs_prompt(folder) else ""
    weights_sha256 = fingerprint(files)
    model = CaptionerModel(
        place=at_commit(place, folder),
        prompt=asked,
        weights_sha256=weights_sha256,
        quick_hash=quick_fingerprint(files),
        dtype=dtype,
    )
    return model, CaptionerIdentity(name_of(place), weights_sha256, f"{PACKAGE} {version(PACKAGE)}", asked)


def _find(place: str) -> tuple[Path, list[tuple[str, Path]]]:
    """Return the local folder, and (name, file) of what is loaded from it. Raises SettingError."""
    with named_in_errors(OPTION):
        folder = weights_folder(place, files_to_load)
        names = files_to_load([path.name for path in folder.iterdir() if path.is_file()])
    return folder, [(name, folder / name) for name in names]
