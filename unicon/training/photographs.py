"""Photographs for training: images in a folder with a condition and a caption each.

Before training every condition is made, or taken from the user's files, and kept as a PNG beside the run.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image

from unicon.image_metadata import without_metadata
from unicon.images import to_rgb
from unicon.texts import decode_text
from unicon.training.annotators import Annotator

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of files that count as images."""
PREVIEWS = ("preview", "preview-unicon")
"""Stems of previews that jobs write beside the records of their runs in `_chunks/`."""
MAX_ASPECT_ERROR = 0.1
"""Largest relative difference between the aspect ratios of a user's condition and its image, from rounded sides."""


@dataclass(frozen=True)
class Photograph:
    """One training image."""

    image: Path
    """The user's file, of any mode, size and orientation."""
    condition: Path
    """RGB PNG with the aspect ratio of the upright image. It may be smaller."""
    caption: str


class UnreadableImageError(ValueError):
    """Raised for a file that is no image, or a damaged one."""


def find_images(folder: Path) -> dict[str, Path]:
    """The images of a folder by name without suffix, sorted.

    Subfolders and hidden files are left out, and so is the preview of a job that has its output in the same folder.

    Raises:
        FileNotFoundError: There is no such folder, or no image in it.
        ValueError: Two images have the same name, so that captions and conditions would be ambiguous.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Images are given as a folder; {folder} is none. Correct the path.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in PREVIEWS and (folder / "_chunks").is_dir():
            continue
        if path.stem in found:
            raise ValueError(
                f"The images of a folder have different names; {found[path.stem].name} and {path.name} in {folder} "
                "have the same. "
                "Rename or remove one."
            )
        found[path.stem] = path
    if not found:
        raise FileNotFoundError(
            f"A folder of images holds {', '.join(SUFFIXES)} files; there are none in {folder} (subfolders are not "
            "searched). Correct the path."
        )
    return found


def read_image(path: Path, side_px: int) -> Image.Image:
    """Read an image as upright RGB, reduced if its shorter side exceeds `side_px`.

    Raises:
        UnreadableImageError: The file cannot be decoded.
    """
    try:
        image = _decoded(path, side_px)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} cannot be decoded: {error}") from error
    factor = side_px / min(image.size)
    if factor >= 1:
        return image
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def _decoded(path: Path, side_px: int) -> Image.Image:
    """The image in RGB. Metadata is dropped if that makes the image readable."""
    try:
        return _opened(path, side_px)
    except (OSError, SyntaxError, ValueError, struct.error):
        for less in without_metadata(path.read_bytes()):
            with suppress(OSError, SyntaxError, ValueError, struct.error):
                return _opened(BytesIO(less.content), side_px, less.profile)
        raise


def _opened(file: Path | BytesIO, side_px: int, profile: bytes | None = None) -> Image.Image:
    with Image.open(file) as image:
        image.draft(None, (side_px, side_px))  # JPEGs are decoded at a fraction of their size, but not below this
        if profile is not None:
            image.info["icc_profile"] = profile
        return to_rgb(image)


def match_conditions(images: Mapping[str, Path], conditions: Path) -> dict[str, Path]:
    """The condition file of every image, which has the same name in the folder of conditions.

    Raises:
        FileNotFoundError: The folder does not exist, or images have no condition in it.
    """
    found = find_images(conditions)
    missing = [path.name for name, path in images.items() if name not in found]
    if missing:
        raise FileNotFoundError(
            f"Every image has a condition of the same name; {conditions} has none for {len(missing)} of "
            f"{len(images)} images: {', '.join(missing[:3])}. Add them, or remove the images."
        )
    return {name: found[name] for name in images}


def prepare_photographs(
    images: Path, kept: Path, source: Path | Callable[[], Annotator], *, side_px: int
) -> list[Photograph]:
    """Find images and make their conditions, unless those exist and are newer than their image.

    Args:
        images: Folder of images. NAME.txt beside NAME.jpg is its caption.
        kept: Receives NAME.png for every condition.
        source: Folder of finished conditions, or a function that loads the annotator. It is called only if a condition
            is missing.
        side_px: Shorter side at which conditions are made and kept.

    Returns:
        The photographs in the order of their names. Those that cannot be read are left out and listed on stderr.

    Raises:
        FileNotFoundError: There are no images, or conditions are missing.
        ValueError: A condition has another aspect ratio, or no image can be read.
    """
    files = find_images(images)
    given = match_conditions(files, source) if isinstance(source, Path) else {}
    kept.mkdir(parents=True, exist_ok=True)
    targets = {name: kept / f"{name}.png" for name in files}
    origins = {name: [path, *([given[name]] if given else [])] for name, path in files.items()}
    todo = [name for name, paths in origins.items() if not _is_fresh(targets[name], paths)]
    annotate = source() if todo and not isinstance(source, Path) else None
    for count, name in enumerate(todo, 1):
        make = annotate or partial(_read_condition, given[name], side_px)
        _make_condition(files[name], targets[name], side_px, make)
        if count % 100 == 0 or count == len(todo):
            print(f"conditions: {count} of {len(todo)}", file=sys.stderr, flush=True)
    found = [
        Photograph(path, targets[name], _read_caption(path)) for name, path in files.items() if targets[name].exists()
    ]
    if not found:
        raise ValueError(f"Training needs images; none of {len(files)} files in {images} can be decoded.")
    return found


def _is_fresh(made: Path, origins: Sequence[Path]) -> bool:
    return made.exists() and made.stat().st_mtime >= max(path.stat().st_mtime for path in origins)


def _make_condition(path: Path, target: Path, side_px: int, annotate: Annotator) -> None:
    """Write the condition of an image. Report a file that cannot be read on stderr, and write nothing."""
    try:
        _write_png(annotate(read_image(path, side_px)), target)
    except UnreadableImageError as error:
        print(f"left out: {error}", file=sys.stderr)
        target.unlink(missing_ok=True)


def _read_condition(path: Path, side_px: int, image: Image.Image) -> Image.Image:
    condition = read_image(path, side_px)
    stretch = (condition.width / condition.height) / (image.width / image.height)
    if abs(math.log(stretch)) > MAX_ASPECT_ERROR:
        raise ValueError(
            f"A condition shows the whole image upright; {path} has the shape {condition.size} and its image "
            f"{image.size}. Make it again from the upright image."
        )
    return condition


def _write_png(image: Image.Image, path: Path) -> None:
    """Write a file atomically."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    image.save(temporary, format="PNG")
    temporary.replace(path)


def _read_caption(image: Path) -> str:
    path = image.with_suffix(".txt")
    if not path.is_file():
        return ""
    text, note = decode_text(path.read_bytes())
    if note:
        print(f"{path}: {note}", file=sys.stderr)
    return " ".join(text.split())
