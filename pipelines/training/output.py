"""The adapters of a training at their place: a folder with both formats and a model card, or one file and its card.

Tested in tests/pipelines/training/test_output.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipelines import storage
from pipelines.runs.chart import curve_chart
from pipelines.storage.store import FILES, Store
from pipelines.training.card import card_text
from pipelines.training.journal import LOG, VALIDATION, Journal

if TYPE_CHECKING:
    from unicon.training.adapter_files import AdapterTraining
    from unicon.training.recipe import AdapterRecipe

ENDING = ".safetensors"
CHART = "loss.svg"


@dataclass(frozen=True, kw_only=True)
class AdapterOutput:
    """Where the adapters go."""

    uri: str
    """A folder, or with the ending of an adapter file the file of the only adapter."""
    model: str
    """Name of the base model."""
    data: Mapping[str, Any]
    """What the model card says about the data."""
    store: Store = FILES

    @property
    def is_file(self) -> bool:
        """Whether the only adapter becomes a file."""
        return self.uri.endswith(ENDING)

    def publish(self, training: "AdapterTraining", journal: Journal, recipe: "AdapterRecipe") -> None:
        """Write the adapters in their current state, each file atomically."""
        from unicon.training.adapter_files import write_adapters

        card = self._card(journal, recipe)
        with TemporaryDirectory() as folder:
            files = write_adapters(training, Path(folder), card)
            contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        contents[CHART] = curve_chart([(line["step"], line["loss"]) for line in journal.lines[LOG]]).encode()
        for name, content in contents.items():
            if uri := self.place_of(name):
                self.store.publish(uri, content)

    def _card(self, journal: Journal, recipe: "AdapterRecipe") -> str:
        places = {name: self.place_of(f"{name}{ENDING}") or "" for name in recipe.kinds}
        files = {name: place.rsplit("/", 1)[-1] for name, place in places.items()}
        chart = (self.place_of(CHART) or "").rsplit("/", 1)[-1]
        log, validation = journal.lines[LOG], journal.lines[VALIDATION]
        return card_text(recipe, self.model, self.data, log, validation, chart, files)

    def place_of(self, name: str) -> str | None:
        """Return where a file of the folder goes; None if it is left out."""
        if not self.is_file:
            return storage.join(self.uri, name)
        stem = self.uri.removesuffix(ENDING)
        if name.endswith(ENDING):
            return None if "/" in name else self.uri
        return {"README.md": f"{stem}.md", CHART: f"{stem}-{CHART}"}.get(name)
