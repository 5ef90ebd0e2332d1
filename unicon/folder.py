"""Finding a Stable Diffusion folder: the embedded model, a local folder, or a hub repository; and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import safe_open

EMBEDDED = Path(__file__).parent / "models"
EMBEDDED_NAMES = ("mini",)
DEFAULT_ESTIMATION_STEPS = 10
"""Sampling steps of an estimation where an adapter does not know better; trailing timestep spacing."""
WEIGHT_FOLDERS = ("unet", "vae", "text_encoder")
HUB_PATTERNS = (
    "model_index.json", "*/config.json", "scheduler/*", "tokenizer/*", "adapters/*.safetensors",
    "unet/diffusion_pytorch_model.safetensors*", "unet/diffusion_pytorch_model-*.safetensors",
    "vae/diffusion_pytorch_model.safetensors*", "vae/diffusion_pytorch_model-*.safetensors",
    "text_encoder/model.safetensors*", "text_encoder/model-*.safetensors",
)  # fmt: skip
"""What is fetched from a hub repository: safetensors only, no code, no half-precision copies."""


def find_folder(model: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model: an embedded name, a folder, or a hub id such as "owner/name" (fetched, cached).

    Errors: FileNotFoundError when there is none, or the hub cannot be reached (HF_HUB_OFFLINE set, no network) and
    the model is not in its cache.
    """
    if str(model) in EMBEDDED_NAMES:
        folder = EMBEDDED / str(model)
        if not (folder / "unet" / "config.json").is_file():
            raise FileNotFoundError(
                f"The embedded model {str(model)!r} lies in {folder}; it is absent from this installation. "
                "Reinstall the package with its data, or give a Stable Diffusion folder."
            )
        return folder
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "unet" / "config.json").is_file():
            raise FileNotFoundError(
                f"A model folder holds unet/, vae/, text_encoder/, tokenizer/ and scheduler/; {folder} has no "
                "unet/config.json. Give a diffusers folder, not a single checkpoint file."
            )
        return folder
    if isinstance(model, Path) or str(model).count("/") != 1 or str(model)[0] in "./~":
        raise FileNotFoundError(
            f"A model is {', '.join(EMBEDDED_NAMES)}, an existing folder, or a hub id like owner/name; got "
            f"{str(model)!r}. Correct the path."
        )
    return _fetch(str(model), revision)


def _fetch(repository: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(HUB_PATTERNS)))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"The hub model {repository!r} is neither a local folder nor in the hub cache, and the hub cannot be "
            "reached (HF_HUB_OFFLINE set, or no network). Fetch it where there is network, or give a local folder."
        ) from error
    except (RepositoryNotFoundError, HfHubHTTPError) as error:
        raise FileNotFoundError(
            f"The hub has no readable model {repository!r} (revision {revision}): {error}. Correct the id, or log in."
        ) from error


def find_adapters(folder: Path, adapters: Mapping[str, str | Path] | None) -> dict[str, Path]:
    """Adapters to load by name: those given, or else every adapters/NAME.safetensors of the model folder.

    Errors: FileNotFoundError for a path that does not exist, ValueError when there is no adapter at all.
    """
    if adapters is None:
        found = {path.stem: path for path in sorted((folder / "adapters").glob("*.safetensors"))}
    else:
        found = {name: Path(path) for name, path in adapters.items()}
    absent = {name: str(path) for name, path in found.items() if not path.exists()}
    if absent:
        raise FileNotFoundError(f"An adapter is a .safetensors file or a published folder; absent: {absent}.")
    if not found:
        raise ValueError(
            f"UniCon needs at least one adapter; {folder} has no adapters/NAME.safetensors and none was given. "
            'Give adapters={"depth": PATH}.'
        )
    return found


class Recommended(NamedTuple):
    """What an adapter recommends for estimates."""

    steps: int = DEFAULT_ESTIMATION_STEPS
    views: int = 1


def recommended(adapter: Path) -> Recommended:
    """What an adapter recommends, read from its metadata alone."""
    if adapter.suffix != ".safetensors":
        return Recommended()
    with safe_open(str(adapter), framework="numpy") as file:
        config = json.loads((file.metadata() or {}).get("config", "{}"))
    steps = int(config.get("estimation_steps", DEFAULT_ESTIMATION_STEPS))
    return Recommended(steps, int(config.get("estimation_views", 1)))


def weight_files(folder: Path, adapters: Iterable[Path]) -> list[tuple[str, Path]]:
    """(name, file) of every file of weights in use, sorted by name."""
    files = [(f"{part}/{path.name}", path) for part in WEIGHT_FOLDERS for path in (folder / part).glob("*.safetensors")]
    for adapter in adapters:
        parts = [adapter] if adapter.is_file() else [path for path in adapter.rglob("*") if path.is_file()]
        files += [(f"adapters/{path.relative_to(adapter.parent)}", path) for path in parts]
    return sorted(files)


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """sha256 over names and contents of files, in hexadecimal."""
    total = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
