"""Finding a Stable Diffusion folder (embedded, local, hub), its adapters, and the files that are loaded from them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from unicon.files.foreign import WANTED_MODEL, check_family, conversion, foreign_checkpoint, other_format
from unicon.files.hashes import fingerprint
from unicon.files.headers import read_header, read_json
from unicon.files.hub import Fetch, HubId, expanded, fetch_files, files_in_hub, is_there, parse_hub_id

__all__ = ["fingerprint", "find_adapter", "find_adapters", "find_folder", "weight_files"]


EMBEDDED = Path(__file__).parents[1] / "models"


EMBEDDED_NAMES = ("mini",)


WEIGHT_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
"""Parts of a model with weights, and what their files are called."""


VARIANTS = ("", "fp16", "bf16")
"""Kinds of copies of the same weights, the preferred one first; others (non_ema, ...) come last."""


LORA_FOLDERS = {"image": "xy_lora", "condition": "yx_lora", "condition_adapter": "y_lora"}
"""Of a published adapter, by role; the last one is absent for id and appearance."""


LORA_FILE = "pytorch_lora_weights.safetensors"


PICKLE_FILE = "model.pth"


PUBLISHED_FILES = (*(f"{folder}/{LORA_FILE}" for folder in LORA_FOLDERS.values()), PICKLE_FILE)


HUB_PATTERNS = (
    "model_index.json", "*/config.json", "scheduler/*", "tokenizer/*", "adapters/*.safetensors",
    "unet/diffusion_pytorch_model.safetensors*", "unet/diffusion_pytorch_model-*.safetensors",
    "vae/diffusion_pytorch_model.safetensors*", "vae/diffusion_pytorch_model-*.safetensors",
    "text_encoder/model.safetensors*", "text_encoder/model-*.safetensors",
)  # fmt: skip
"""What is taken from a hub repository whose files cannot be listed: safetensors only, no half-precision copies."""


SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def find_folder(model: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model: an embedded name, a folder, or a hub id such as "owner/name" (fetched, cached).

    A hub id may end in @REVISION. A local folder of the same name wins.

    Raises:
        FileNotFoundError: there is none, or the hub cannot be reached (HF_HUB_OFFLINE set, no network) and the model
            is not in its cache.
        ValueError: a single file instead of a folder, or a model of another family.
    """
    if not str(model).strip():
        raise ValueError("A model is a name, a folder or a hub id; got an empty text. For this folder write a dot.")
    if str(model) in EMBEDDED_NAMES:
        folder = EMBEDDED / str(model)
        if not (folder / "unet" / "config.json").is_file():
            raise FileNotFoundError(
                f"The embedded model {str(model)!r} lies in {folder}; it is absent from this installation. "
                "Reinstall the package with its data, or give a Stable Diffusion folder."
            )
        return folder
    folder = expanded(model)
    if is_there(folder) and folder.is_dir():
        check_family(folder)
        return folder
    if is_there(folder):
        raise ValueError(_single_file(folder))
    name = parse_hub_id(str(model))
    if isinstance(model, Path) or name is None or name.inside:
        raise FileNotFoundError(
            f"A model is {', '.join(EMBEDDED_NAMES)}, an existing folder, or a hub id like owner/name; got "
            f"{str(model)[:200]!r}. Correct the path."
        )
    return _fetch_model(name._replace(revision=revision or name.revision))


def _single_file(path: Path) -> str:
    """What to do with a file that is given as a model."""
    if path.suffix not in SINGLE_FILES:
        other = other_format(path)
        cure = "Give the same model's folder in safetensors" if other else "Give the folder"
        return f"{WANTED_MODEL}; {path} {other or 'is a file'}. {cure}."
    if path.suffix == ".safetensors":
        other = foreign_checkpoint(read_header(path).shapes)
        if other:
            return f"{WANTED_MODEL}; {path} {other}."
    warning = "" if path.suffix == ".safetensors" else (
        " A file of this kind is a pickle, which can run code of its author: take a .safetensors file where there is "
        "one."
    )  # fmt: skip
    folder = path.with_suffix("")
    return (
        f"{WANTED_MODEL}; {path} is a single file.{warning} Convert it once:\n  "
        f"{conversion(f'P.from_single_file({str(path)!r}, safety_checker=None, feature_extractor=None)', folder)}\n"
        f"then give {folder}. It takes the tokenizer from the hub; without network, say where a folder of the same "
        "version is: P.from_single_file(..., config='/models/stable-diffusion-v1-5')."
    )


def _fetch_model(name: HubId) -> Path:
    """The cached folder of a model; only what is loaded is fetched."""
    listed = files_in_hub(name)
    patterns = HUB_PATTERNS if listed is None else sorted(files_to_load(listed))
    return fetch_files(name, patterns, "hub model")


def weights_to_load(part: str, names: Collection[str]) -> list[str]:
    """Which of the files of a part's folder are loaded: one variant, with its index where it is in several files.

    names: of files, without the folder. The order is that of diffusers (UNet, autoencoder) and transformers (text
    encoder), so that what is hashed is what is loaded. Empty where there are no weights in safetensors.
    """
    stem = WEIGHT_STEMS[part]
    pattern = re.compile(
        rf"{stem}(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?(?:\.(?P<old>[\w-]+))?\.safetensors"
        r"(?P<index>\.index(?:\.(?P<of>[\w-]+))?\.json)?"
    )
    singles: dict[str, list[str]] = {}
    sharded: dict[str, list[str]] = {}
    for name in sorted(names):
        match = pattern.fullmatch(name)
        if match is not None:
            variant = match["variant"] or match["old"] or match["of"] or ""
            kind = sharded if match["index"] or re.search(r"-\d+-of-\d+", name) else singles
            kind.setdefault(variant, []).append(name)
    whole = {variant: files for variant, files in sharded.items() if any(name.endswith(".json") for name in files)}
    orders = [singles, whole] if part == "text_encoder" else [whole, singles]
    others = sorted({*singles, *whole} - {*VARIANTS}, key=lambda variant: ("non_ema" in variant, variant))
    for variant in (*VARIANTS, *others):
        for kind in orders:
            if variant in kind:
                return kind[variant]
    return []


def variant_of(files: Collection[str]) -> str | None:
    """The variant of the files that `weights_to_load` chose, as diffusers and transformers take it."""
    for name in files:
        match = re.search(
            r"\.([\w-]+?)(?:-\d+-of-\d+)?\.safetensors$|\.index\.([\w-]+)\.json$|-of-\d+\.([\w-]+)\.", name
        )
        found = match and next((group for group in match.groups() if group), None)
        if found:
            return found
    return None


def files_to_load(names: Collection[str]) -> set[str]:
    """Which of the files of a whole model folder, by their paths in it, a model is loaded from."""
    found = {name for name in names if re.fullmatch(r"model_index\.json|(unet|vae|text_encoder)/config\.json", name)}
    found |= {
        name
        for name in names
        if re.fullmatch(r"(scheduler|tokenizer)/[^/]+\.(json|txt|model)|adapters/[^/]+\.safetensors", name)
    }
    for part in WEIGHT_STEMS:
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        found |= {f"{part}/{name}" for name in weights_to_load(part, inside)}
    return found


def part_files(folder: Path, part: str) -> list[Path]:
    """The safetensors files of a part that are loaded, sorted; empty where there are none.

    Raises:
        FileNotFoundError: a file that an index names is not there. ValueError: the index cannot be read.
    """
    place = folder / part
    chosen = weights_to_load(part, [path.name for path in place.iterdir()] if place.is_dir() else [])
    index = next((name for name in chosen if name.endswith(".json")), None)
    if index is None:
        return [place / name for name in chosen]
    named = read_json(place / index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ValueError(f"{place / index} is no index of weights: it has no weight_map. Get the folder again.")
    files = sorted({place / str(name) for name in named.values()})
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise FileNotFoundError(
            f"{place / index} names {len(files)} files; absent: {', '.join(absent[:3])}. Get the folder again."
        )
    return files


def find_adapters(folder: Path, adapters: Mapping[str, str | Path] | None) -> dict[str, Path]:
    """Adapters to load by name: those given, or else every adapters/NAME.safetensors of the model folder.

    Raises:
        FileNotFoundError: a path that does not exist. ValueError: there is no adapter at all.
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


def is_published(path: str | Path) -> bool:
    """Whether a path is a folder in the published layout."""
    return (Path(path) / PICKLE_FILE).is_file()


def find_adapter(source: str | Path, kind: str | None = None, fetch: Fetch | None = None) -> Path:
    """An adapter file, a published folder, or one in the hub: OWNER/NAME or OWNER/NAME/FOLDER, @REVISION or not.

    kind: which folder to take where the source is a whole repository, here or in the hub; the condition's name.

    Raises:
        FileNotFoundError: there is none; the message says what is there instead.
    """
    if not str(source).strip():
        raise ValueError(f"An adapter is a file, a folder or a hub id; got an empty text ({kind}). Correct it.")
    path = expanded(source)
    if not is_there(path):
        name = None if isinstance(source, Path) else parse_hub_id(source)
        if name is None:
            raise FileNotFoundError(
                "An adapter is a .safetensors file, a published folder, or a hub id OWNER/NAME or OWNER/NAME/FOLDER; "
                f"there is nothing at {str(source)[:200]!r}, it is absent. Correct the path."
            )
        return _published_in(_fetch_adapter(name, kind, fetch), kind, name)
    return _published_in(path, kind, None) if path.is_dir() else path


def _fetch_adapter(name: HubId, kind: str | None, fetch: Fetch | None) -> Path:
    if name.inside.endswith(".safetensors"):
        patterns = [name.inside]
    else:
        folders = [name.inside] if name.inside or kind is None else ["", kind]
        patterns = [f"{folder}/{file}".lstrip("/") for folder in folders for file in PUBLISHED_FILES]
    return fetch_files(name, patterns, "adapter", fetch) / name.inside


def _published_in(path: Path, kind: str | None, name: HubId | None) -> Path:
    """The path itself where it is an adapter, or the one folder in it that is called by the kind."""
    if path.is_file() or is_published(path):
        return path
    inside = {found.parent for found in path.rglob(PICKLE_FILE)} if path.is_dir() else set()
    of_kind = [folder for folder in inside if folder.name == kind]
    if len(of_kind) == 1:
        return of_kind[0]
    if not inside and path.is_dir() and name is None:
        return path  # something else: the inspection says what
    here = sorted(folder.relative_to(path).as_posix() for folder in inside)
    if name is not None:
        listed = files_in_hub(name) or []
        here = sorted({*here, *(file.removesuffix(f"/{PICKLE_FILE}") for file in listed if file.endswith(PICKLE_FILE))})
    wanted = f" and no folder for the condition {kind!r}" if kind else ""
    raise FileNotFoundError(
        f"A published adapter is a folder with {PICKLE_FILE}; {name.text if name else path} has none{wanted}"
        f"{f', but {here} in it have. Name the very folder' if here else '. Correct the path or the id'}."
    )


def adapter_metadata(adapter: Path) -> dict:
    """The configuration in the metadata of an adapter file; empty for a published folder."""
    return {} if adapter.is_dir() else json.loads(read_header(adapter).metadata.get("config", "{}"))


class Lora(NamedTuple):
    """A LoRA file that is fused into the base at load."""

    path: Path
    scale: float


def weight_files(
    folder: Path, adapters: Iterable[Path], loras: Iterable[Lora] = (), *, unused: bool = False
) -> list[tuple[str, Path]]:
    """(name, file) of every file of weights in use, sorted by name; the name of a LoRA has its scale.

    unused: every safetensors file of the parts and every file of the adapters too, as versions until 0.2 hashed them.
    """
    files: list[tuple[str, Path]] = []
    for part in WEIGHT_STEMS:
        paths = (folder / part).glob("*.safetensors") if unused else part_files(folder, part)
        files += [(f"{part}/{path.name}", path) for path in paths]
    for adapter in adapters:
        if adapter.is_file():
            parts = [adapter]
        elif unused:
            parts = [path for path in adapter.rglob("*") if path.is_file()]
        else:
            parts = [adapter / name for name in PUBLISHED_FILES if (adapter / name).is_file()]
        files += [(f"adapters/{path.relative_to(adapter.parent)}", path) for path in parts]
    files += [(f"loras/{place} {lora.scale!r}", lora.path) for place, lora in enumerate(loras)]
    return sorted(files)
