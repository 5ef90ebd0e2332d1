"""The description of an engine (`engines`) that travels to the actors, and which engine makes the rows.

Tested in tests/pipelines/tasks/test_engine_model.py.
"""

import dataclasses
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engines import EngineSpec
from pipelines.errors import SettingError
from pipelines.storage.file_info import short_hash
from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.model import ModelFiles, UniConModel, find_files, limit_threads
from pipelines.tasks.model_cache import is_remote, local_copy_of_files
from pipelines.tasks.model_identity import ModelIdentity, at_commit, place_name
from pipelines.tasks.model_options import named_in_errors, parse_model
from unicon.files.hashes import fingerprint, quick_fingerprint
from unicon.files.hub import commit_of, expanded, fetch_files, files_in_hub, is_local, parse_hub_id
from unicon.files.inspection import check_model
from unicon.limits import ModelLimits

ENGINE, WEIGHTS, MODEL = "--engine", "--engine-weights", "--model"


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


@dataclass(frozen=True, kw_only=True)
class EngineIdentity(ModelIdentity):
    """Which engine makes the rows."""

    engine: str
    """Family and name, without the folders above a local one."""
    package: str
    """Name and version of the package that the engine runs. Recorded, but not part of the configuration."""
    options: str = ""
    """Options that are not at their defaults."""

    @property
    def provenance(self) -> dict[str, Any]:
        """The columns of a row that name its engine; columns without a value are left out."""
        columns = {
            "engine": self.engine,
            "engine_options": self.options,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "engine_package": self.package,
            **self.revisions,
        }
        return {name: text for name, text in columns.items() if text}

    @property
    def limits(self) -> ModelLimits | None:
        """Engines check their options themselves."""
        return None


def resolve_engine(
    spec: EngineSpec, *, condition: str | None = None, dtype: str | None = None
) -> tuple[EngineModel, EngineIdentity]:
    """Find, check and hash an engine without loading it; returns the description for actors and the identity.

    Args:
        spec: The engine.
        condition: Name of the condition that it estimates, and of the column; None: the usual name. For an engine that
            makes images, the condition that it follows.
        dtype: Type of weights and computation.

    Raises:
        SettingError: A package or a file is missing, is something else, or does not fit the others.
    """
    if dtype is not None and not spec.family.has_dtype:
        raise SettingError(f"--dtype {dtype}: the engine {spec.text} has its own data type. Remove the option.")
    with named_in_errors(ENGINE):
        try:
            spec.check_package()
        except ImportError as error:
            raise SettingError(f"{ENGINE}: {error}") from error
        spec = _with_absolute_places(spec)
        files = find_engine(spec)
        made = spec.makes(files.folder)
    if made is None and condition is None:
        raise SettingError(f"{ENGINE} {spec.text} makes images that follow a condition. Name one with --condition.")
    column = ConditionColumn(name=condition or made.column, kind=made.kind) if made else _followed(spec, condition)
    ...
