"""Finding the adapters of a model: files of this project, folders in the official layout, and adapters on the hub.

The official layout is that of the adapters released with arXiv 2410.11439:

    FOLDER/xy_lora/, yx_lora/, y_lora/, each with pytorch_lora_weights.safetensors, and FOLDER/model.pth

Tested in tests/unicon/files/test_hub.py and tests/unicon/files/test_adapter_inspection.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unicon.files.hub import HubId, expanded, fetch_files, files_in_hub, is_there, parse_hub_id

LORA_FOLDERS = {"image": "xy_lora", "condition": "yx_lora", "condition_adapter": "y_lora"}
"""Kind of LoRA -> its folder in the official layout. The last one is absent for id and appearance."""
LORA_FILE = "pytorch_lora_weights.safetensors"
PICKLE_FILE = "model.pth"
OFFICIAL_FILES = (*(f"{folder}/{LORA_FILE}" for folder in LORA_FOLDERS.values()), PICKLE_FILE)


def is_official(path: str | Path) -> bool:
    """Whether a path is a folder in the official layout."""
    return (Path(path) / PICKLE_FILE).is_file()


def find_adapters(folder: Path, adapters: Mapping[str, str | Path] | None) -> dict[str, Path]:
    """The adapters to load, by name: the given ones, or every adapters/NAME.safetensors of the model folder.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: There is no adapter at all.
    """
    if adapters is not None and not isinstance(adapters, Mapping):
        raise ValueError(
            f"Adapters are given by the names of their conditions, {{'depth': 'PATH'}}; got {str(adapters)[:200]!r}."
        )
    if adapters is None:
        found = {path.stem: path for path in sorted((folder / "adapters").glob("*.safetensors"))}
    else:
        found = {name: find_adapter(source, name) for name, source in adapters.items()}
    if not found:
        raise ValueError(
            f"UniCon needs at least one adapter; {folder} has no adapters/NAME.safetensors and none was given. "
            "Give one by the name of its condition: --adapter depth=PATH in a command, depth -> PATH in Python."
        )
    return found


def find_adapter(source: str | Path, kind: str | None = None) -> Path:
    """Find one adapter: a file, a folder in the official layout, or a hub id.

    Args:
        source: A path; or OWNER/NAME or OWNER/NAME/FOLDER on the hub, optionally followed by @REVISION.
        kind: Name of the condition. It selects the folder where the source is a whole repository.

    Raises:
        FileNotFoundError: There is no such adapter. The message says what is there instead.
    """
    if not str(source).strip():
        raise ValueError(f"An adapter is a file, a folder or a hub id; got an empty text ({kind}). Correct it.")
    path = expanded(source)
    if not is_there(path):
        name = None if isinstance(source, Path) else parse_hub_id(source)
        if name is None:
            raise FileNotFoundError(
                "An adapter is a .safetensors file, an official adapter folder, or a hub id OWNER/NAME or "
                f"OWNER/NAME/FOLDER; there is nothing at {str(source)[:200]!r}, it is absent. Correct the path."
            )
        return _official_in(_fetch_adapter(name, kind), kind, name)
    return _official_in(path, kind, None) if path.is_dir() else path


def _fetch_adapter(name: HubId, kind: str | None) -> Path:
    if name.inside.endswith(".safetensors"):
        patterns = [name.inside]
    else:
        folders = [name.inside] if name.inside or kind is None else ["", kind]
        patterns = [f"{folder}/{file}".lstrip("/") for folder in folders for file in OFFICIAL_FILES]
    return fetch_files(name, patterns, "adapter") / name.inside


def _official_in(path: Path, kind: str | None, name: HubId | None) -> Path:
    """The path itself where it is an adapter, or the one folder in it that is named after the kind."""
    if path.is_file() or is_official(path):
        return path
    inside = {found.parent for found in path.rglob(PICKLE_FILE)} if path.is_dir() else set()
    of_kind = [folder for folder in inside if folder.name == kind]
    if len(of_kind) == 1:
        return of_kind[0]
    if not inside and path.is_dir() and name is None:
        return path  # not an adapter; the inspection reports what it is
    here = sorted(folder.relative_to(path).as_posix() for folder in inside)
    if name is not None:
        listed = files_in_hub(name) or []
        here = sorted({*here, *(file.removesuffix(f"/{PICKLE_FILE}") for file in listed if file.endswith(PICKLE_FILE))})
    wanted = f" and no folder for the condition {kind!r}" if kind else ""
    raise FileNotFoundError(
        f"An official adapter is a folder with {PICKLE_FILE}; {name.text if name else path} has none{wanted}"
        f"{f', but {here} in it have. Name the very folder' if here else '. Correct the path or the id'}."
    )
