"""Checkpoints at any URI: the state after STEP steps is the file training/state-STEP.pt of the work folder.

A file appears whole or not at all, so whenever a process is killed, the file with the most steps is a state to continue
from. Older ones are removed after it has appeared.

Tested in tests/pipelines/training/test_checkpoints.py.
"""

import re
from dataclasses import dataclass

from pipelines import storage
from pipelines.storage.store import FILES, Store

FOLDER = "training"
"""Folder in a work folder for the checkpoints and the log."""
NAME = re.compile(r"state-(\d{8,})\.pt")


@dataclass(frozen=True)
class StoredCheckpoints:
    """The latest state of a training. Implements `unicon.training.checkpoints.Checkpoints`."""

    work: str
    """URI of the work folder."""
    store: Store = FILES

    def __str__(self) -> str:
        return storage.join(self.work, FOLDER)

    def step(self) -> int:
        """Return the number of steps after which the latest state was kept; 0 if there is none."""
        return max(self._found(), default=0)

    def load(self) -> bytes | None:
        """Return the latest state, or None."""
        found = self._found()
        return self.store.read_bytes(found[max(found)]) if found else None

    def save(self, step: int, content: bytes) -> None:
        """Keep the state after `step` steps instead of the earlier ones."""
        earlier = [uri for other, uri in self._found().items() if other < step]
        self.store.publish(storage.join(str(self), f"state-{step:08d}.pt"), content)
        for uri in earlier:
            self.store.remove(uri)

    def _found(self) -> dict[int, str]:
        """Return the files by their steps."""
        named = [(NAME.fullmatch(uri.rsplit("/", 1)[-1]), uri) for uri in self.store.list_uris(str(self))]
        return {int(match[1]): uri for match, uri in named if match}
