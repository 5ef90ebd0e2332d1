"""Finding a Stable Diffusion folder: the embedded model, a local folder or a hub id; and the weight files in use.

Tested in tests/unicon/files/test_hub.py and tests/unicon/test_loading.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from unicon.files.adapters import OFFICIAL_FILES
from unicon.files.foreign import WANTED_MODEL, check_family, conversion, foreign_checkpoint, other_format
from unicon.files.headers import read_header
from unicon.files.hub import HubId, expanded, fetch_files, files_in_hub, is_there, parse_hub_id
from unicon.files.weights import MAP_DECODER, WEIGHT_STEMS, files_to_load, part_files, weights_to_load

EMBEDDED = Path(__file__).parents[1] / "models"
EMBEDDED_NAMES = ("mini",)
HUB_PATTERNS = (
    "model_index.json", "*/config.json", "scheduler/*", "tokenizer/*", "adapters/*.safetensors",
    "unet/diffusion_pytorch_model.safetensors*", "unet/diffusion_pytorch_model-*.safetensors",
    "vae/diffusion_pytorch_model.safetensors*", "vae/diffusion_pytorch_model-*.safetensors",
    "text_encoder/model.safetensors*", "text_encoder/model-*.safetensors", f"{MAP_DECODER}/*.safetensors",
)  # fmt: skip
"""Files fetched from a hub repository that cannot be listed: safetensors only, no half-precision copies."""
SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Suffixes of checkpoints that hold a whole model in one file."""
WANTED_VAE = "An autoencoder is a folder with config.json and diffusion_pytorch_model.safetensors, or a model's folder"


def find_folder(model: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model.

    Args:
        model: An embedded name, a folder, or a hub id such as "owner/name" or "owner/name@revision", which is fetched
            into the hub cache. A local folder of the same name takes precedence.
        revision: Branch, tag or commit of a hub id.

    Raises:
        FileNotFoundError: There is no such model, or the hub cannot be reached (HF_HUB_OFFLINE is set, or there is no
            network) and the model is not in its cache.
        ValueError: It is a single file instead of a folder, or a model of another family.
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
    """The message for a file that is given as a model."""
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
    """The cached folder of a model. Only the files that are loaded are fetched."""
    listed = files_in_hub(name)
    patterns = HUB_PATTERNS if listed is None else sorted(files_to_load(listed))
    return fetch_files(name, patterns, "hub model")


def find_vae(folder: Path, vae: str | Path | None) -> Path:
    """The folder of a model's autoencoder.

    Args:
        folder: The model folder, whose own is vae/.
        vae: Another one: its folder, a model folder that has one in vae/, or a hub id of either, OWNER/NAME or
            OWNER/NAME/FOLDER, optionally followed by @REVISION.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is something else.
    """
    if vae is None:
        return folder / "vae"
    if not str(vae).strip():
        raise ValueError(f"{WANTED_VAE}; got an empty text. Leave it out for the model's own.")
    path, name = expanded(vae), None if isinstance(vae, Path) else parse_hub_id(str(vae))
    if not is_there(path) and name is not None:
        path = _fetch_vae(name)
    for place in (path, path / "vae"):
        if (place / "config.json").is_file():
            return place
    if path.is_file():
        raise ValueError(f"{WANTED_VAE}; {path} is a file. Give the folder that holds it and its config.json.")
    raise FileNotFoundError(f"{WANTED_VAE}; there is none at {str(vae)[:200]!r}. Correct the path.")


def _fetch_vae(name: HubId) -> Path:
    """The cached folder of an autoencoder in the hub. Only the files that are loaded are fetched."""
    listed = files_in_hub(name)
    inside = f"{name.inside}/" if name.inside else ""
    patterns: list[str] = []
    for place in (inside, f"{inside}vae/"):
        names = ["diffusion_pytorch_model.safetensors"] if listed is None else [
            file.removeprefix(place) for file in listed if file.startswith(place)
        ]  # fmt: skip
        patterns += [place + file for file in ("config.json", *weights_to_load("vae", names))]
    return fetch_files(name, patterns, "autoencoder") / name.inside


class Lora(NamedTuple):
    """A LoRA file that is fused into the base model when it is loaded."""

    path: Path
    scale: float


def weight_files(
    folder: Path, adapters: Iterable[Path], loras: Iterable[Lora] = (), *, vae: Path | None = None,
    map_decoder: Path | None = None, unused: bool = False,
) -> list[tuple[str, Path]]:  # fmt: skip
    """(name, file) of every weight file in use, sorted by name. The name of a LoRA contains its scale.

    Args:
        folder: The model folder.
        adapters: Adapter files and official adapter folders.
        loras: LoRAs fused into the base.
        vae: The folder of the autoencoder, by default the model's own.
        map_decoder: The folder of the small decoder if maps are decoded by it.
        unused: Also list the other safetensors files of the parts and all files of the adapters. Versions before 0.2
            hashed these.
    """
    files: list[tuple[str, Path]] = []
    for part in WEIGHT_STEMS:
        place = vae if part == "vae" and vae is not None else folder / part
        paths = place.glob("*.safetensors") if unused else part_files(place, part)
        files += [(f"{part}/{path.name}", path) for path in paths]
    for adapter in adapters:
        if adapter.is_file():
            parts = [adapter]
        elif unused:
            parts = [path for path in adapter.rglob("*") if path.is_file()]
        else:
            parts = [adapter / name for name in OFFICIAL_FILES if (adapter / name).is_file()]
        files += [(f"adapters/{path.relative_to(adapter.parent)}", path) for path in parts]
    if map_decoder is not None:
        files += [(f"{MAP_DECODER}/{path.name}", path) for path in part_files(map_decoder, "vae")]
    files += [(f"loras/{place} {lora.scale!r}", lora.path) for place, lora in enumerate(loras)]
    return sorted(files)
