"""The description of a `unicon.UniCon` that travels to the actors, and the files that it names."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.errors import SettingError
from pipelines.storage.file_info import short_hash
from pipelines.tasks.model_cache import check_is_folder, local_copy
from pipelines.tasks.model_options import named_in_errors
from pipelines.tasks.shared_code import SharedCode
from unicon.adapters.config import read_config
from unicon.compilation.policy import CompileMode, CompileSettings
from unicon.files.adapter_inspection import check_adapter, check_kind
from unicon.files.adapters import find_adapters
from unicon.files.decoders import map_decoder_folder
from unicon.files.folder import Lora, find_folder, find_vae, weight_files
from unicon.files.hashes import quick_fingerprint
from unicon.files.inspection import check_model
from unicon.files.loras import check_scale, find_lora, lora_layers
from unicon.files.model_config import model_config

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The CPU quota of a container: microseconds of CPU time in a period (or `max`), and the period."""


class ModelFiles(NamedTuple):
    """The files of a model on this machine."""

    folder: Path
    adapters: Mapping[str, Path]
    loras: tuple[Lora, ...] = ()
    vae: Path | None = None
    """The folder of the autoencoder if it is not the model's own."""
    map_decoder: Path | None = None
    """The folder of the small decoder if it decodes the maps."""

    def fingerprint(self) -> str:
        """Return a hash that changes with the weights or configurations, without reading every file whole."""
        return short_hash(quick_fingerprint(self.weights()), json.dumps(self.config(), sort_keys=True))

    def config(self) -> dict[str, Any]:
        """Return what changes a row apart from the weights, see `unicon.files.model_config`."""
        return model_config(self.folder, vae=self.vae, map_decoder=self.map_decoder)

    def weights(self) -> list[tuple[str, Path]]:
        """Return (name, file) of the weights in use."""
        return weight_files(self.folder, self.adapters.values(), self.loras, vae=self.vae, map_decoder=self.map_decoder)


@dataclass(frozen=True, kw_only=True)
class UniConModel:
    """The description of a model with the adapters of some conditions; `build` loads it."""

    model: str
    """`mini`, a Stable Diffusion folder (its path or URI), or a hub id."""
    conditions: tuple[str, ...]
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Condition -> adapter file, folder or hub id. The adapters of other conditions come from the model folder."""
    loras: tuple[tuple[str, float], ...] = ()
    """(path, URI or hub id, scale) of LoRAs that are fused into the base."""
    vae: str | None = None
    """The autoencoder, if not the model's own: a folder, URI or hub id."""
    uses_map_decoder: bool = False
    """Whether the model's small decoder decodes the maps."""
    revision: str | None = None
    """The revision of a model in the hub."""
    weights_sha256: str | None = None
    """The hash that the driver computed, so that actors do not read every file for it."""
    fingerprint: str | None = None
    """`ModelFiles.fingerprint` of the driver's files."""
    device: str | None = None
    """Device of the model; None: the GPU of the actor if it has one, else the CPU."""
    dtype: str | None = None
    """Type of weights and arithmetic; None: float16 on a GPU, float32 on a CPU."""
    actors_per_node: int | None = None
    """Actors that share the CPUs of a machine; None: an actor uses the number of threads that torch chooses."""
    compile: CompileMode = "never"
    """Whether the calls of the model are compiled, see `unicon.compilation.policy.CompileSettings`."""
    rows_expected: int | None = None
    """The number of rows of micro-batches that an actor will compute; None: unknown."""
    compiled_code: str | None = None
    """Folder or URI where actors share compiled code, which they execute; None: each machine keeps it for itself."""

    def with_device(self, device: str | None, actors_per_node: int) -> "UniConModel":
        """Return the description for actors with this device; None is the GPU of the actor."""
        return dataclasses.replace(self, device=device, actors_per_node=actors_per_node)

    def with_work(self, rows: int | None) -> "UniConModel":
        """Return the description for actors that compute `rows` rows of micro-batches each; None: unknown.

        An image has one row for each view and each member of an ensemble.
        """
        return dataclasses.replace(self, rows_expected=rows)

    def build(self) -> Any:
        """Load the model on this process's device.

        Raises:
            RuntimeError: The files on this machine differ from those of the driver.
        """
        import torch

        from unicon import UniCon

        limit_threads(self.actors_per_node)
        files = find_same_files(self)
        return UniCon.from_pretrained(
            files.folder,
            adapters=files.adapters or None,
            loras=[(lora.path, lora.scale) for lora in files.loras],
            vae=files.vae,
            device=self.device,
            dtype=None if self.dtype is None else getattr(torch, self.dtype),
            revision=self.revision,
            weights_sha256=self.weights_sha256,
            compile=CompileSettings(
                mode=self.compile,
                rows_expected=self.rows_expected,
                shared=None if self.compiled_code is None else SharedCode(self.compiled_code),
            ),
        )


def limit_threads(actors_per_node: int | None) -> None:
    """Let torch use this process's share of the CPUs that `actors_per_node` actors share; None: no limit.

    Where there is a GPU, nothing is changed.
    """
    import torch

    if actors_per_node is not None and not torch.cuda.is_available():
        torch.set_num_threads(max(1, usable_cpus() // actors_per_node))


def usable_cpus() -> int:
    """Return how many CPUs this process may use, by its affinity and the quota of its container."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):
        return cpus


def find_files(description: UniConModel) -> ModelFiles:
    """Find the files of a description on this machine, and fetch those that are elsewhere.

    Raises:
        SettingError: A file does not exist.
    """
    with named_in_errors("--model"):
        check_is_folder(description.model)
        folder = find_folder(local_copy(description.model), description.revision)
    with named_in_errors("--adapter" if description.adapters else "--model"):
        adapters = _find_adapters(description, folder)
    with named_in_errors("--lora"):
        loras = tuple(Lora(find_lora(local_copy(place)), check_scale(scale)) for place, scale in description.loras)
    with named_in_errors("--vae"):
        vae = None if description.vae is None else find_vae(folder, local_copy(description.vae, "vae"))
    decoder = map_decoder_folder(folder) if description.uses_map_decoder else None
    return ModelFiles(folder, adapters, loras, vae, decoder)


def find_same_files(description: UniConModel) -> ModelFiles:
    """Find the files of a description in a worker.

    Raises:
        SettingError: A file does not exist.
        RuntimeError: The files on this machine differ from those of the driver.
    """
    files = find_files(description)
    if description.fingerprint is not None and files.fingerprint() != description.fingerprint:
        raise RuntimeError(
            f"the model {description.model!r} or an adapter on {os.uname().nodename} has other weights or "
            "configurations than where the command was started. Give a URI, or copy the same files to every node."
        )
    return files


def check_files(files: ModelFiles, has_adapters: bool = True) -> None:
    """Check by the headers of the files that they can be loaded and fit together.

    Raises:
        SettingError: A file cannot be loaded, or does not fit the others.
    """
    with named_in_errors("--model" if files.vae is None else "--model, --vae"):
        shape = check_model(files.folder, files.vae)
    with named_in_errors("--adapter" if has_adapters else "--model"):
        for name, path in files.adapters.items():
            check_adapter(path, shape)
            check_kind(kind_of(name, path), path)
    with named_in_errors("--lora"):
        for lora in files.loras:
            lora_layers(lora.path, shape)


def _find_adapters(description: UniConModel, folder: Path) -> dict[str, Path]:
    """Return the adapter of every condition, in the order of the conditions.

    Raises:
        FileNotFoundError, ValueError, SettingError: An adapter is missing, or is something else.
    """
    given = {name: local_copy(path, name) for name, path in description.adapters.items()}
    missing = [name for name in description.conditions if name not in given]
    there = find_adapters(folder, None) if missing else {}
    found = {**there, **(find_adapters(folder, given) if given else {})}
    for name in missing:
        if name not in found:
            raise SettingError(
                f"--model {description.model!r} has the adapters {sorted(there)} and none called {name}. "
                f"Name one of these as the condition, or give one with --adapter {name}=PATH."
            )
    return {name: found[name] for name in description.conditions}


def kind_of(name: str, adapter: Path) -> str:
    """Return the kind of an adapter from its metadata alone. Official adapters are named after their kind."""
    return name if adapter.is_dir() else read_config(adapter)[0].kind
