"""`unicon.UniCon` behind a light description, and what can be known of it without loading it."""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.errors import SettingError
from pipelines.storage import short_hash
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.model_cache import check_is_folder, is_remote, local_copy
from unicon.adapters.config import Recommended, recommended
from unicon.files.folder import EMBEDDED_NAMES, Lora, adapter_metadata, find_adapters, find_folder, weight_files
from unicon.files.hashes import fingerprint, quick_fingerprint
from unicon.files.hub import commit_of, is_local, parse_hub_id
from unicon.files.inspection import check_adapter, check_kind, check_model
from unicon.files.loras import check_scale, find_lora, lora_layers
from unicon.files.model_config import model_config
from unicon.limits import ModelLimits

REVISIONS = ("model_revision", "adapter_revision")
"""Columns that name commits of the hub. The content decides about rows, so they are no part of the configuration."""


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
    loras: str = ""
    """Names and scales of LoRAs in the base, joined by +."""
    revisions: Mapping[str, str] = field(default_factory=dict)
    """Commits of what comes from the hub, by column; of the model where a revision was asked for."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What else of the model changes a row: `unicon.files.model_config`."""
    files: "ModelFiles | None" = None

    @property
    def provenance(self) -> dict[str, Any]:
        """The columns of a row that name its model."""
        columns = {"model": self.model, "weights_sha256": self.weights_sha256, "adapter": self.adapter}
        return {**columns, **({"loras": self.loras} if self.loras else {}), **self.revisions}

    @property
    def limits(self) -> ModelLimits | None:
        """The sizes and numbers of steps that the model can have."""
        return None if self.files is None else ModelLimits.of_folder(self.files.folder)

    def hashed_by_earlier_versions(self) -> str:
        """`weights_sha256` as versions until 0.2 made it: over copies of the weights that nobody loads, too."""
        if self.files is None:
            return self.weights_sha256
        return fingerprint(weight_files(self.files.folder, self.files.adapters.values(), unused=True))


class ModelFiles(NamedTuple):
    """Where a model lies on this machine."""

    folder: Path
    adapters: Mapping[str, Path]
    loras: tuple[Lora, ...] = ()

    def fingerprint(self) -> str:
        """Tells other weights or configurations apart without reading them whole."""
        config = json.dumps(model_config(self.folder), sort_keys=True)
        return short_hash(quick_fingerprint(self.weights()), config)

    def weights(self) -> list[tuple[str, Path]]:
        """(name, file) of the weights in use."""
        return weight_files(self.folder, self.adapters.values(), self.loras)


@dataclass(frozen=True, kw_only=True)
class UniConModel:
    """Description of a model with the adapters of some conditions; `build` loads it."""

    model: str
    """`mini`, a Stable Diffusion folder (its path or URI), or a hub id."""
    conditions: tuple[str, ...]
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Condition -> adapter file or folder or hub id; those of other conditions come from the model folder."""
    loras: tuple[tuple[str, float], ...] = ()
    """(path, URI or hub id, scale) of LoRAs that are fused into the base."""
    revision: str | None = None
    """Of a model in the hub."""
    weights_sha256: str | None = None
    """As the driver found it, so that actors do not read every file for it."""
    fingerprint: str | None = None
    """`ModelFiles.fingerprint` of the driver's files."""
    device: str | None = None
    """None: the GPU of the actor if it has one, else the CPU."""
    dtype: str | None = None
    """None: float16 on a GPU, float32 on a CPU."""
    actors_per_node: int | None = None
    """What the CPUs of an actor's machine are divided by; None: an actor takes the threads that torch gives it."""

    def placed(self, device: str | None, actors_per_node: int) -> "UniConModel":
        """The description for actors of a kind."""
        return dataclasses.replace(self, device=device, actors_per_node=actors_per_node)

    def build(self) -> Any:
        """Load the model on this process's device.

        Raises:
            RuntimeError: this machine has other files than the driver.
        """
        import torch

        from unicon import UniCon

        if self.actors_per_node is not None and not torch.cuda.is_available():
            torch.set_num_threads(max(1, usable_cpus() // self.actors_per_node))
        files = find_files(self)
        if self.fingerprint is not None and files.fingerprint() != self.fingerprint:
            raise RuntimeError(
                f"the model {self.model!r} or an adapter on {os.uname().nodename} has other weights or configurations "
                "than where the command was started. Give a URI, or copy the same files to every node."
            )
        return UniCon.from_pretrained(
            files.folder,
            adapters=files.adapters or None,
            loras=[(lora.path, lora.scale) for lora in files.loras],
            device=self.device,
            dtype=None if self.dtype is None else getattr(torch, self.dtype),
            revision=self.revision,
            weights_sha256=self.weights_sha256,
        )


CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Of a container: microseconds of CPU time in a period, or `max`, and the period."""


def usable_cpus() -> int:
    """CPUs of this machine that this process may use, by its affinity and by the quota of its container."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):
        return cpus


def find_files(description: UniConModel) -> ModelFiles:
    """The files of a description on this machine, fetched where they are elsewhere.

    Raises:
        SettingError: one of them is not there.
    """
    with _said_of("--model"):
        check_is_folder(description.model)
        folder = find_folder(local_copy(description.model), description.revision)
    with _said_of("--adapter" if description.adapters else "--model"):
        adapters = _find_adapters(description, folder)
    with _said_of("--lora"):
        loras = tuple(Lora(find_lora(local_copy(place)), check_scale(scale)) for place, scale in description.loras)
    return ModelFiles(folder, adapters, loras)


def check_files(files: ModelFiles, has_adapters: bool = True) -> None:
    """Refuse what cannot be loaded or does not fit together, by headers alone. Raises SettingError."""
    with _said_of("--model"):
        shape = check_model(files.folder)
    with _said_of("--adapter" if has_adapters else "--model"):
        for name, path in files.adapters.items():
            check_adapter(path, shape)
            check_kind(_kind(name, path), path)
    with _said_of("--lora"):
        for lora in files.loras:
            lora_layers(lora.path, shape)


@contextmanager
def _said_of(option: str) -> Iterator[None]:
    """Inside, what is wrong is wrong with an option. Raises SettingError."""
    try:
        yield
    except SettingError:
        raise
    except (OSError, ValueError) as error:
        raise SettingError(f"{option}: {error}") from error


def resolve_model(description: UniConModel) -> tuple[UniConModel, ModelIdentity]:
    """Find, judge and hash a model without loading it: (the description for actors, which model it is).

    Commits of the hub are resolved here, once, so that every node loads the same.

    Raises:
        SettingError: something is not there, is something else, or does not fit.
    """
    files = find_files(description)
    check_files(files, bool(description.adapters))
    paths, asked = list(files.adapters.values()), _hub_model(description)
    revisions = {
        "model_revision": (commit_of(files.folder) or "") if asked and description.revision else "",
        "adapter_revision": "+".join(filter(None, map(commit_of, paths))) if description.adapters else "",
    }
    identity = ModelIdentity(
        model=Path(description.model).resolve().name if Path(description.model).is_dir() else description.model,
        adapter="+".join(_adapter_name(description.adapters.get(name), path) for name, path in files.adapters.items()),
        conditions=tuple(ConditionColumn(name=name, kind=_kind(name, path)) for name, path in files.adapters.items()),
        recommended=recommended(paths[0]) if paths else Recommended(),
        weights_sha256=fingerprint(files.weights()),
        loras="+".join(f"{_lora_name(place)}:{scale:g}" for place, scale in description.loras),
        revisions={name: text for name, text in revisions.items() if text},
        config=model_config(files.folder),
        files=files,
    )
    resolved = dataclasses.replace(
        description,
        revision=(commit_of(files.folder) if asked else None) or description.revision,
        adapters={name: _at_commit(place, files.adapters[name]) for name, place in description.adapters.items()},
        loras=tuple((_at_commit(place, lora.path), lora.scale)
                    for (place, _), lora in zip(description.loras, files.loras, strict=True)),
        weights_sha256=identity.weights_sha256,
        fingerprint=files.fingerprint(),
    )  # fmt: skip
    return resolved, identity


def identify_model(description: UniConModel) -> ModelIdentity:
    """The second half of `resolve_model`."""
    return resolve_model(description)[1]


def _hub_model(description: UniConModel) -> bool:
    return not is_remote(description.model) and not is_local(description.model)


def _at_commit(place: str, path: Path) -> str:
    """A place of the hub, at the commit and with the folder that were found; others as they are."""
    name, commit = None if "://" in place or is_local(place) else parse_hub_id(place), commit_of(path)
    if name is None or commit is None:
        return place
    inside = path.as_posix().split(f"/snapshots/{commit}", 1)[1].strip("/")
    return name._replace(inside=inside, revision=commit).text


def _adapter_name(place: str | None, path: Path) -> str:
    name = None if place is None or "://" in place or is_local(place) else parse_hub_id(_at_commit(place, path))
    return path.stem if name is None else name._replace(revision=None).text


def _lora_name(place: str) -> str:
    name = None if "://" in place or is_local(place) else parse_hub_id(place)
    return name._replace(revision=None).text if name else Path(place).name


def _find_adapters(description: UniConModel, folder: Path) -> dict[str, Path]:
    """The adapter of every condition, in their order. Raises FileNotFoundError, ValueError or SettingError."""
    given = {name: local_copy(path, name) for name, path in description.adapters.items()}
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
    config = adapter_metadata(adapter)
    return config.get("kind") or config.get("name") or name


def parse_model(text: str) -> tuple[str, str | None]:
    """`--model` as (absolute path, URI, embedded name or hub id; revision of the hub)."""
    if text in EMBEDDED_NAMES or "://" in text:
        return text, None
    with _said_of("--model"):
        if is_local(text):
            return os.path.abspath(os.path.expanduser(text)), None
    name = parse_hub_id(text)
    return (text, None) if name is None or name.revision is None else (name._replace(revision=None).text, name.revision)


def parse_adapters(texts: Sequence[str], conditions: Sequence[str]) -> dict[str, str]:
    """`--adapter` values as condition -> absolute path, URI or hub id.

    NAME=PATH, or just PATH where there is one condition. A path that exists wins over a hub id.

    Raises:
        SettingError: a condition that the command does not use or that comes twice, or a path that could be several
            conditions'.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or (name not in conditions and "/" in name):  # a path with "=" in it
            name, path = (conditions[0], text) if len(conditions) == 1 else ("", text)
        if name not in conditions or not path:
            raise SettingError(
                f"--adapter {text[:200]!r}: write NAME=PATH with a condition of this command "
                f"({', '.join(conditions)}), or PATH alone where there is one condition."
            )
        if name in found:
            raise SettingError(f"--adapter {text!r}: {name} has an adapter already, {found[name]}. Give one for each.")
        with _said_of("--adapter"):
            found[name] = _place(path)
    return found


def parse_loras(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """`--lora` values, PATH or PATH:SCALE, as (absolute path, URI or hub id, scale).

    Raises:
        SettingError: a scale that is no finite number.
    """
    found: list[tuple[str, float]] = []
    for text in texts:
        place, colon, scale = text.rpartition(":")
        if not place or scale.startswith("//") or os.path.exists(os.path.expanduser(text)):
            place, scale = text, "1"
        try:
            value = check_scale(float(scale))
        except ValueError as error:
            raise SettingError(
                f"--lora {text[:200]!r}: {error} Write PATH or PATH:SCALE, like a.safetensors:0.8."
            ) from None
        if not place:
            raise SettingError("--lora '': write PATH or PATH:SCALE, like a.safetensors:0.8.")
        with _said_of("--lora"):
            found.append((_place(place), value))
    return tuple(found)


def _place(text: str) -> str:
    return text if "://" in text or not is_local(text) else os.path.abspath(os.path.expanduser(text))
