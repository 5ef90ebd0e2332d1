"""The compiled code of a model in a store, so that every actor of a cluster starts from what one has compiled.

Actors execute this code: whoever can write to the folder can run code on their machines. It is therefore used only if
the user names it (`--compile-cache`).

Tested in tests/pipelines/tasks/test_shared_code.py.
"""

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipelines import storage

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedCode:
    """A folder with the files of `unicon.compilation.cache`. A store that fails only costs time."""

    folder: str
    """URI of the folder."""

    def fetch(self, path: Path) -> None:
        """Copy the file of the path's name from the store to the path, if the store has it."""
        try:
            content = storage.read_bytes(storage.join(self.folder, path.name))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except FileNotFoundError:
            return
        except OSError as error:
            LOGGER.warning("The compiled code in %s cannot be used: %s", self.folder, error)

    def publish(self, path: Path) -> None:
        """Copy the file at the path to the store, in place of an earlier one."""
        try:
            storage.publish(storage.join(self.folder, path.name), path.read_bytes())
        except OSError as error:
            LOGGER.warning("The compiled code is not shared in %s: %s", self.folder, error)
