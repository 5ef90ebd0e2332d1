"""`unicon.UniCon` behind a light description, and what can be known of it without loading it."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from pipelines.conditions import ConditionColumn
from pipelines.errors import SettingError
from pipelines.model_files import local_copy
from unicon.folder import Recommended, find_adapters, find_folder, fingerprint, recommended, weight_files


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model makes the rows."""

    model: str
    adapter: str
    """Names of the adapter files in use, joined by +."""
    conditions: tuple[ConditionColumn, ...]
    recommended: Recommended
    """What the first adapter recommends for estimates."""
    weights_sha256: str
    """Over all files of weights in use."""

    @property
    def provenance(self) -> dict[str, Any]:
        """The columns of a row that name its model."""
        return {"model": self.model, "weights_sha256": self.weights_sha256, "adapter": self.adapter}


@dataclass(frozen=True, kw_only=True)
class UniConModel:
    """Description of a model with the adapters of some conditions; `build` loads it."""

    model: str
    """`mini`, a Stable Diffusion folder (its path or URI), or a hub id."""
    conditions: tuple[str, ...]
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Condition -> adapter file or folder; those of other conditions come from the model folder."""
    device: str | None = None
    """None: the GPU of the actor if it has one, else the CPU."""
    cpu_threads: int | None = None

    def placed(self, device: str | None, cpu_threads: int) -> "UniConModel":
        """The description for actors of a kind."""
        return dataclasses.replace(self, device=device, cpu_threads=cpu_threads)

    def build(self) -> Any:
        """Load the model on this process's device."""
        import torch

        from unicon import UniCon

        if self.cpu_threads is not None and not torch.cuda.is_available():
            torch.set_num_threads(self.cpu_threads)
        model = local_copy(self.model)
        adapters = _find_adapters(self, find_folder(model))
        return UniCon.from_pretrained(model, adapters=adapters or None, device=self.device)


def identify_model(description: UniConModel) -> ModelIdentity:
    """Find and hash model and adapters without loading them.

    Raises:
        SettingError: one of them is not there.
    """
    try:
        folder = find_folder(local_copy(description.model))
        adapters = _find_adapters(description, folder)
    except SettingError:
        raise
    except (OSError, ValueError) as error:
        option = "--model or --adapter" if description.adapters else "--model"
        raise SettingError(f"{option}: {error}") from error
    paths = list(adapters.values())
    model = description.model
    return ModelIdentity(
        model=Path(model).resolve().name if Path(model).is_dir() else model,
        adapter="+".join(path.stem for path in paths),
        conditions=tuple(ConditionColumn(name=name, kind=_kind(name, path)) for name, path in adapters.items()),
        recommended=recommended(paths[0]) if paths else Recommended(),
        weights_sha256=fingerprint(weight_files(folder, paths)),
    )


def _find_adapters(description: UniConModel, folder: Path) -> dict[str, Path]:
    """The adapter of every condition, in their order. Raises FileNotFoundError, ValueError or SettingError."""
    given = {name: Path(local_copy(path)) for name, path in description.adapters.items()}
    missing = [name for name in description.conditions if name not in given]
    there = find_adapters(folder, None) if missing or not given else {}
    found = {**there, **(find_adapters(folder, given) if given else {})}
    for name in missing:
        if name not in found:
            raise SettingError(
                f"--model {description.model!r} has the adapters {sorted(there)} and none called {name}. "
                f"Name one of these as the condition, or give one with --adapter {name}=PATH."
            )
    return {name: found[name] for name in description.conditions}


def _kind(name: str, adapter: Path) -> str:
    """The kind of condition of an adapter, from its metadata alone; published ones are called by their kind."""
    if adapter.suffix != ".safetensors":
        return name
    with safe_open(str(adapter), framework="numpy") as file:
        config = json.loads((file.metadata() or {}).get("config", "{}"))
    return config.get("kind") or config.get("name") or name


def parse_adapters(texts: Sequence[str], conditions: Sequence[str]) -> dict[str, str]:
    """`--adapter` values, NAME=PATH or just PATH where there is one condition, as condition -> absolute path or URI.

    Raises:
        SettingError: a condition that the command does not use, or a path that could be several conditions'.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = (conditions[0], text) if len(conditions) == 1 else ("", text)
        if name not in conditions:
            raise SettingError(
                f"--adapter {text!r}: write NAME=PATH with a condition of this command ({', '.join(conditions)}), "
                "or PATH alone where there is one condition."
            )
        found[name] = path if "://" in path else os.path.abspath(path)
    return found
