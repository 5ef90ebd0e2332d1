"""UniCon itself as an engine: one condition, estimated as its adapter recommends."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engines.family import Family
from engines.interfaces import Made, Target
from engines.options import EngineOption, Value
from unicon.files.weights import files_to_load


class UniConFamily(Family):
    """See `Family`."""

    name, place, package = "unicon", "CONDITION", "diffusers"
    help = "this project's own model with the adapter of a condition"
    known = (EngineOption(name="adapter", help="file, folder, URI or hub id of the adapter", kind=str),)

    def weights(self, name: str, given: str | None) -> str | None:
        return given or "mini"

    def choose(self, name: str, names: Collection[str]) -> Collection[str]:
        return files_to_load(names)

    def makes(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Made:
        from unicon.adapters.config import read_config

        adapter = self._adapter(name, options, folder)
        return Made(name, name if adapter.is_dir() else read_config(adapter)[0].kind)

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> Any:
        from unicon import UniCon

        assert target.folder is not None, "the engine has weights"
        adapters = {name: self._adapter(name, options, target.folder)}
        return UniCon.from_pretrained(target.folder, adapters=adapters, device=target.device, dtype=target.dtype)

    def _adapter(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Path:
        from unicon.files.adapters import find_adapters  # imports the client of the hub

        assert folder is not None, "the engine has weights"
        given = options.get("adapter")
        found = find_adapters(folder, {name: str(given)} if given else None)
        if name not in found:
            raise ValueError(f"the model has the adapters {sorted(found)} and none called {name}. Name one of these.")
        return found[name]
