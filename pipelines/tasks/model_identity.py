"""Which model makes the rows: the columns and settings that name it, known before it is loaded."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.tasks.condition_columns import ConditionColumn
from pipelines.tasks.model import ModelFiles, UniConModel, check_files, find_files, kind_of
from pipelines.tasks.model_cache import is_remote
from unicon.adapters.config import Recommended, recommended
from unicon.files.folder import weight_files
from unicon.files.hashes import fingerprint
from unicon.files.hub import commit_of, is_local, parse_hub_id
from unicon.limits import ModelLimits

REVISIONS = ("model_revision", "adapter_revision", "engine_revision", "engine_package")
"""Columns that name commits of the hub and versions of packages. They are not part of the configuration, since the
content of the files decides, and since a run may go on with another version of a package."""


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model makes the rows."""

    model: str
    adapter: str
    """Names of the adapter files in use, joined by `+`."""
    conditions: tuple[ConditionColumn, ...]
    recommended: Mapping[str, Recommended]
    """Condition -> what its adapter recommends for estimates."""
    not_single_step: tuple[str, ...] = ()
    """The conditions whose adapters were not trained for estimates in one step."""
    weights_sha256: str
    """The hash of all weight files in use."""
    loras: str = ""
    """Names and scales of the LoRAs that are fused into the base model, joined by `+`."""
    vae: str = ""
    """Name of the autoencoder if it is not the model's own."""
    revisions: Mapping[str, str] = field(default_factory=dict)
    """Column -> commit of the adapters in the hub, and of the model if a revision was given."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What changes a row apart from the weights, see `unicon.files.model_config`."""
    files: ModelFiles | None = None

    @property
    def provenance(self) -> dict[str, Any]:
        """The columns of a row that name its model."""
        columns = {"model": self.model, "weights_sha256": self.weights_sha256, "adapter": self.adapter}
        special = {name: text for name, text in (("loras", self.loras), ("vae", self.vae)) if text}
        return {**columns, **special, **self.revisions}

    @property
    def has_map_decoder(self) -> bool:
        """Whether the model has a small decoder of maps."""
        return self.limits is not None and self.limits.has_map_decoder

    @property
    def limits(self) -> ModelLimits | None:
        """The image sizes and numbers of steps that the model supports."""
        return None if self.files is None else ModelLimits.of_folder(self.files.folder, self.files.vae)

    def hashed_by_earlier_versions(self) -> str:
        """Return `weights_sha256` as versions up to 0.2 computed it, with copies of the weights that are not loaded."""
        if self.files is None:
            return self.weights_sha256
        return fingerprint(weight_files(self.files.folder, self.files.adapters.values(), unused=True))


def resolve_model(description: UniConModel) -> tuple[UniConModel, ModelIdentity]:
    """Find, check and hash a model without loading it; returns the description for actors and the identity.

    Commits of the hub are resolved here, once, so that every node loads the same files.

    Raises:
        SettingError: A file is missing, is something else, or does not fit the others.
    """
    files = find_files(description)
    check_files(files, bool(description.adapters))
    paths, is_hub_model = list(files.adapters.values()), _is_hub_model(description)
    revisions = {
        "model_revision": (commit_of(files.folder) or "") if is_hub_model and description.revision else "",
        "adapter_revision": "+".join(filter(None, map(commit_of, paths))) if description.adapters else "",
    }
    identity = ModelIdentity(
        model=Path(description.model).resolve().name if Path(description.model).is_dir() else description.model,
        adapter="+".join(_adapter_name(description.adapters.get(name), path) for name, path in files.adapters.items()),
        conditions=tuple(ConditionColumn(name=name, kind=kind_of(name, path)) for name, path in files.adapters.items()),
        recommended={name: recommended(path) for name, path in files.adapters.items()},
        not_single_step=tuple(name for name, path in files.adapters.items() if not recommended(path).single_step),
        weights_sha256=fingerprint(files.weights()),
        loras="+".join(f"{name_of(place)}:{scale:g}" for place, scale in description.loras),
        vae=name_of(description.vae or ""),
        revisions={name: text for name, text in revisions.items() if text},
        config=files.config(),
        files=files,
    )
    resolved = dataclasses.replace(
        description,
        revision=(commit_of(files.folder) if is_hub_model else None) or description.revision,
        adapters={name: at_commit(place, files.adapters[name]) for name, place in description.adapters.items()},
        loras=tuple((at_commit(place, lora.path), lora.scale)
                    for (place, _), lora in zip(description.loras, files.loras, strict=True)),
        vae=at_commit(description.vae, files.vae) if description.vae and files.vae else None,
        weights_sha256=identity.weights_sha256,
        fingerprint=files.fingerprint(),
    )  # fmt: skip
    return resolved, identity


def identify_model(description: UniConModel) -> ModelIdentity:
    """Return the identity alone, see `resolve_model`."""
    return resolve_model(description)[1]


def _is_hub_model(description: UniConModel) -> bool:
    return not is_remote(description.model) and not is_local(description.model)


def at_commit(place: str, path: Path) -> str:
    """Return a hub id with the commit and the folder that were found; other places are returned unchanged."""
    name, commit = None if "://" in place or is_local(place) else parse_hub_id(place), commit_of(path)
    if name is None or commit is None:
        return place
    inside = path.as_posix().split(f"/snapshots/{commit}", 1)[1].strip("/")
    return name._replace(inside=inside, revision=commit).text


def _adapter_name(place: str | None, path: Path) -> str:
    name = None if place is None or "://" in place or is_local(place) else parse_hub_id(at_commit(place, path))
    return path.stem if name is None else name._replace(revision=None).text


def name_of(place: str) -> str:
    """The name of a LoRA or an autoencoder: the hub id, or the last part of a path."""
    name = None if "://" in place or is_local(place) else parse_hub_id(place)
    return name._replace(revision=None).text if name else Path(place).name
