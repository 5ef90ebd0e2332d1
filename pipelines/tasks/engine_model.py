"""The description of an engine (`engines`) that travels to the actors, and which engine makes the rows.

Tested in tests/pipelines/tasks/test_engine_model.py.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines import EngineSpec
from pipelines.errors import SettingError
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.engine_files import EngineFiles, absolute_place, find_engine
from pipelines.tasks.model import limit_threads
from pipelines.tasks.model_identity import ModelIdentity, at_commit, name_of
from pipelines.tasks.model_options import named_in_errors
from unicon.condition_kinds import CONDITION_KINDS
from unicon.files.hashes import fingerprint
from unicon.files.hub import commit_of, is_local


@dataclass(frozen=True, kw_only=True)
class EngineModel:
    """The description of an engine; `build` loads it."""

    spec: EngineSpec
    weights_sha256: str = ""
    """The hash of all files in use, which the driver computed."""
    fingerprint: str | None = None
    """`EngineFiles.fingerprint` of the driver's files."""
    device: str | None = None
    """Device of the model; None: the GPU of the actor if it has one, else the CPU."""
    dtype: str | None = None
    """Type of weights and computation; None: float16 on a GPU, float32 on a CPU."""
    actors_per_node: int | None = None
    """Actors that share the CPUs of a machine; None: an actor uses the number of threads that torch chooses."""

    def with_device(self, device: str | None, actors_per_node: int) -> "EngineModel":
        """Return the description for actors with this device; None is the GPU of the actor."""
        return dataclasses.replace(self, device=device, actors_per_node=actors_per_node)

    def with_work(self, rows: int | None) -> "EngineModel":
        """Return the description unchanged: engines do not depend on the number of rows."""
        return self

    def build(self) -> Any:
        """Load the engine on this process's device.

        Raises:
            RuntimeError: The files on this machine differ from those of the driver.
        """
        limit_threads(self.actors_per_node)
        files = find_engine(self.spec)
        if self.fingerprint is not None and files.fingerprint() != self.fingerprint:
            raise RuntimeError(
                f"the engine {self.spec.text} on {os.uname().nodename} has other weights or configurations than where "
                "the command was started. Give a URI, or copy the same files to every node."
            )
        engine = self.spec.load(files.folder, self.device, self.dtype, files.base and files.base.folder)
        return dataclasses.replace(engine, weights_sha256=self.weights_sha256)


@dataclass(frozen=True, kw_only=True)
class EngineIdentity(ModelIdentity):
    """Which engine makes the rows."""

    engine: str
    """Family and name, without the folders above a local one."""
    package: str
    """Name and version of the package that the engine runs. It is recorded, but not part of the configuration."""
    options: str = ""
    """Options that are not at their defaults."""
    area_px: int = 0
    """The number of pixels of an image that the engine can use; 0: no more than usual."""

    @property
    def provenance(self) -> dict[str, Any]:
        columns = {
            "engine": self.engine,
            "engine_options": self.options,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "engine_package": self.package,
            **self.revisions,
        }
        return {name: text for name, text in columns.items() if text}


def resolve_engine(
    spec: EngineSpec, *, condition: str | None = None, dtype: str | None = None
) -> tuple[EngineModel, EngineIdentity]:
    """Find, check and hash an engine without loading it; returns the description for actors and the identity.

    Commits of the hub are resolved here, once, so that every node loads the same files.

    Args:
        spec: The engine.
        condition: Name of the condition and its column; None: the usual name of what the engine estimates. An engine
            that makes images follows this condition.
        dtype: Type of weights and computation.

    Raises:
        SettingError: A package or a file is missing, is something else, or does not fit the others.
    """
    if dtype is not None and not spec.family.has_dtype:
        raise SettingError(f"--dtype {dtype}: the engine {spec.text} has its own data type. Remove the option.")
    try:
        spec.check_package()
    except ImportError as error:
        raise SettingError(f"--engine: {error}") from error
    spec = dataclasses.replace(spec, weights=None if spec.weights is None else absolute_place(spec.weights),
                               base=None if spec.base is None else absolute_place(spec.base))  # fmt: skip
    files = find_engine(spec)
    weights_sha256 = fingerprint(files.all()) if files.all() else ""
    identity = EngineIdentity(
        model="" if spec.base is None else name_of(spec.base),
        adapter="",
        conditions=(_column(spec, files.folder, condition),),
        recommended={},
        weights_sha256=weights_sha256,
        config={} if files.base is None else files.base.config(),
        revisions=_revisions(spec, files),
        engine=f"{spec.family.name}:{_short_name(spec)}",
        package=spec.package,
        options=", ".join(f"{name}={value}" for name, value in spec.options.items()),
        area_px=spec.family.area_px(spec.name, spec.options, files.folder),
    )
    return (
        EngineModel(spec=_pinned(spec, files), weights_sha256=weights_sha256, fingerprint=files.fingerprint(),
                    dtype=dtype), identity
    )  # fmt: skip


def _column(spec: EngineSpec, folder: Path | None, condition: str | None) -> ConditionColumn:
    """Return the condition that an engine estimates or follows. Raises SettingError."""
    with named_in_errors("--engine"):
        made = spec.makes(folder)
    name = condition or (made.column if made else "")
    kind = made.kind if made else name
    if kind not in CONDITION_KINDS:
        raise SettingError(
            f"--engine {spec.text} follows a condition whose kind is one of {', '.join(CONDITION_KINDS)}; got "
            f"{name[:60]!r}. Use that name for --condition, or add --engine-option kind=KIND."
        )
    return ConditionColumn(name=name, kind=kind, records_kind=True)


def _short_name(spec: EngineSpec) -> str:
    """The name without the folders above a local one, which differ from machine to machine."""
    return Path(spec.name).expanduser().resolve().name if "/" in spec.name and is_local(spec.name) else spec.name


def _revisions(spec: EngineSpec, files: EngineFiles) -> dict[str, str]:
    """The commits of the hub in use, by column."""
    found = {
        "engine_revision": commit_of(files.folder) if files.folder else None,
        "model_revision": commit_of(files.base.folder) if files.base else None,
    }
    return {name: commit for name, commit in found.items() if commit}


def _pinned(spec: EngineSpec, files: EngineFiles) -> EngineSpec:
    """The engine with the commits of the hub that were found."""
    weights = spec.weights if spec.weights is None or files.folder is None else at_commit(spec.weights, files.folder)
    base = spec.base if spec.base is None or files.base is None else at_commit(spec.base, files.base.folder)
    return dataclasses.replace(spec, weights=weights, base=base)
