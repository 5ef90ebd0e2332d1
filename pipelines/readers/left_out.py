"""Counting the files that are left out of an input, and why.

Tested in tests/pipelines/readers/test_places.py and test_shards.py.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.errors import clipped
from pipelines.storage import local_files
from pipelines.storage.uris import protocol

DEAD_LINK, NO_EXTENSION, OTHER_EXTENSION, IS_HIDDEN = (
    "dead links",
    "no extension",
    "extension of no image or shard",
    "hidden (. or _ before the name)",
)
OUTPUT, BESIDE_OUTPUT = "outputs of earlier runs", "files beside the data/ of an output"


@dataclass
class LeftOut:
    """Counts the files that are left out of an input by reason, with an example for each reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    is_own: Callable[[str], bool] = lambda uri: False
    """Returns whether an output is the command's own, which nobody expects to be read."""
    looks_for_links: bool = True
    """Whether to look for dead links, which takes one more walk through the folders of a disk."""
    _outputs: set[str] = field(default_factory=set)

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count files. The first name of a reason becomes its example."""
        if reason == OUTPUT:
            if name in self._outputs or self.is_own(name):
                return
            self._outputs.add(name)
        if count:
            self.counts[reason] += count
            self.examples.setdefault(reason, name if reason in (OUTPUT, DEAD_LINK) else name.lstrip("/"))

    def add_dead_links(self, place: str, is_pattern: bool = False) -> None:
        """Count the broken links at a local place, which listings skip."""
        if self.looks_for_links and protocol(place) == "file":
            found = local_files.dead_links(place, is_pattern)
            self.add(DEAD_LINK, found[0] if found else "", len(found))

    def text(self, option: str = "--input") -> str:
        """Return one line for the user; empty if nothing is left out."""
        cure = {OUTPUT: f"; to read one, give it alone as {option}"}
        parts = [
            f"{reason}: {count} ({clipped(self.examples[reason])}{cure.get(reason, '')})"
            for reason, count in self.counts.items()
        ]
        return f"left out of the input: {', '.join(parts)}" if parts else ""


def unwanted(name: str) -> str:
    """Return why a file is not used, by its name."""
    if name.rsplit("/", 1)[-1].startswith((".", "_")):
        return IS_HIDDEN
    return OTHER_EXTENSION if "." in name.rsplit("/", 1)[-1].strip(".") else NO_EXTENSION
