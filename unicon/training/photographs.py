"""Training pairs of photographs: pictures in a folder, a condition of each, captions; one working size a step.

Before training every condition is made (or taken from the user's files) once and kept as a PNG beside the run. A
training step reads its pictures anew, looks at a random part of each, and encodes them; memory does not grow with the
collection.

Source: arXiv 2410.11439, appendix A (random aspect ratio at constant area, random flip).
Shapes: ``B`` pairs, ``H W`` pixels of the working size, ``c h w`` latent.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageOps
from torch import Tensor

from unicon.image_metadata import without_metadata
from unicon.images import to_model, to_rgb, working_size
from unicon.texts import decode_text
from unicon.training.annotators import Annotator
from unicon.training.pairs import DrawnPairs, encode_latents

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Files of a folder that count as pictures."""
PREVIEWS = ("preview", "preview-unicon")
"""What jobs write beside the records of their runs in `_chunks/`."""
MAX_ASPECT_ERROR = 0.1
"""A condition given by the user may be stretched by this fraction against its picture (sides rounded to multiples)."""
KEPT_SIDE = 1.5
"""Pictures are read at a shorter side of about this many times the resolution, so that parts of them stay sharp."""
ENCODED_TOGETHER = 8


@dataclass(frozen=True)
class Photograph:
    """One training picture."""

    picture: Path
    """As the user gave it: any mode, size and orientation."""
    condition: Path
    """RGB PNG of the upright picture's aspect ratio, perhaps smaller."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class Views:
    """What a training step sees of its pictures. The defaults are the published recipe's, with a slight zoom."""

    resolution_px: int
    """Side of the square whose area every working size has."""
    multiple: int
    """The model takes sides of multiples of this many pixels."""
    max_aspect: float = 2.0
    """Aspect ratios are drawn between 1 / this and this, evenly in the logarithm; one a step."""
    min_crop: float = 0.8
    """A picture's part is the largest of the aspect ratio, times a random factor from here to 1, at a random place."""
    flip_probability: float = 0.5
    """Of seeing a picture and its condition mirrored; 0 where a mirrored condition is wrong (poses)."""

    def __post_init__(self) -> None:
        good = self.max_aspect >= 1 and 0 < self.min_crop <= 1 and 0 <= self.flip_probability <= 1
        if not good or min(self.resolution_px, self.multiple) < 1:
            raise ValueError(
                "Views need a positive resolution_px and multiple, max_aspect of at least 1, min_crop in (0, 1] and "
                f"flip_probability in [0, 1]; got {self}. Correct the value."
            )

    @property
    def kept_side_px(self) -> int:
        """Shorter side that is enough of a picture."""
        return round(self.resolution_px * KEPT_SIDE)


class UnreadablePictureError(ValueError):
    """A file that is no picture, or a damaged one."""


def find_pictures(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by name (without suffix), sorted; subfolders and hidden files are left out.

    So is the preview of a dataset's job that has its output in the same folder: it is no picture of anything.

    Raises:
        FileNotFoundError: there is no such folder, or no picture in it.
        ValueError: two pictures of one name, which one caption or condition could not tell apart.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"Pictures come in a folder; {folder} is none. Correct the path.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in PREVIEWS and (folder / "_chunks").is_dir():
            continue
        if path.stem in found:
            raise ValueError(
                f"A picture's name tells it apart; {found[path.stem].name} and {path.name} in {folder} have the same. "
                "Rename or remove one."
            )
        found[path.stem] = path
    if not found:
        raise FileNotFoundError(
            f"A folder of pictures holds {', '.join(SUFFIXES)} files; there are none in {folder} (subfolders are not "
            "searched). Correct the path."
        )
    return found


def read_picture(path: Path, side_px: int) -> Image.Image:
    """A picture as upright RGB, made smaller where its shorter side exceeds ``side_px``.

    Raises:
        UnreadablePictureError: the file cannot be decoded.
    """
    try:
        picture = _decoded(path, side_px)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UnreadablePictureError(f"{path} cannot be decoded: {error}") from error
    factor = side_px / min(picture.size)
    if factor >= 1:
        return picture
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.BICUBIC)


def _decoded(path: Path, side_px: int) -> Image.Image:
    """The picture in RGB; without metadata where that is all that cannot be read."""
    try:
        return _opened(path, side_px)
    except (OSError, SyntaxError, ValueError, struct.error):
        for less in without_metadata(path.read_bytes()):
            with suppress(OSError, SyntaxError, ValueError, struct.error):
                return _opened(BytesIO(less.content), side_px, less.profile)
        raise


def _opened(file: Path | BytesIO, side_px: int, profile: bytes | None = None) -> Image.Image:
    with Image.open(file) as image:
        image.draft(None, (side_px, side_px))  # JPEGs are decoded at a fraction of their size, never below this one
        if profile is not None:
            image.info["icc_profile"] = profile
        return to_rgb(image)


def match_conditions(pictures: Mapping[str, Path], conditions: Path) -> dict[str, Path]:
    """The condition file of every picture: same name, in the folder of conditions.

    Raises:
        FileNotFoundError: the folder is none, or pictures have no condition in it.
    """
    found = find_pictures(conditions)
    missing = [path.name for name, path in pictures.items() if name not in found]
    if missing:
        raise FileNotFoundError(
            f"Every picture has a condition of the same name; {conditions} has none for {len(missing)} of "
            f"{len(pictures)} pictures: {', '.join(missing[:3])}. Add them, or remove the pictures."
        )
    return {name: found[name] for name in pictures}


def prepare_photographs(
    images: Path, kept: Path, source: Path | Callable[[], Annotator], *, side_px: int
) -> list[Photograph]:
    """Pictures with their conditions in ``kept``, which are made where they are missing or older than their picture.

    Args:
        images: folder of pictures; NAME.txt beside NAME.jpg is its caption.
        kept: receives NAME.png for every condition.
        source: folder of finished conditions, or what makes the annotator (called only if there is something to do).
        side_px: shorter side at which conditions are made and kept.

    Returns:
        The photographs in order of their names, without those that cannot be read, which stderr lists.

    Raises:
        FileNotFoundError: no pictures, or no condition for some.
        ValueError: a condition of another aspect ratio, or not one picture that can be read.
    """
    pictures = find_pictures(images)
    given = match_conditions(pictures, source) if isinstance(source, Path) else {}
    kept.mkdir(parents=True, exist_ok=True)
    targets = {name: kept / f"{name}.png" for name in pictures}
    origins = {name: [path, *([given[name]] if given else [])] for name, path in pictures.items()}
    todo = [name for name, paths in origins.items() if not _is_fresh(targets[name], paths)]
    annotate = source() if todo and not isinstance(source, Path) else None
    for count, name in enumerate(todo, 1):
        make = annotate or partial(_read_condition, given[name], side_px)
        _make_condition(pictures[name], targets[name], side_px, make)
        if count % 100 == 0 or count == len(todo):
            print(f"conditions: {count} of {len(todo)}", file=sys.stderr, flush=True)
    found = [
        Photograph(path, targets[name], _read_caption(path))
        for name, path in pictures.items()
        if targets[name].exists()
    ]
    if not found:
        raise ValueError(f"Training needs pictures; not one of {len(pictures)} files in {images} can be decoded.")
    return found


def _is_fresh(made: Path, origins: Sequence[Path]) -> bool:
    return made.exists() and made.stat().st_mtime >= max(path.stat().st_mtime for path in origins)


def _make_condition(path: Path, target: Path, side_px: int, annotate: Annotator) -> None:
    """Write a picture's condition; nothing, and a line on stderr, for files that cannot be read."""
    try:
        _write_png(annotate(read_picture(path, side_px)), target)
    except UnreadablePictureError as error:
        print(f"left out: {error}", file=sys.stderr)
        target.unlink(missing_ok=True)


def _read_condition(path: Path, side_px: int, picture: Image.Image) -> Image.Image:
    condition = read_picture(path, side_px)
    stretch = (condition.width / condition.height) / (picture.width / picture.height)
    if abs(math.log(stretch)) > MAX_ASPECT_ERROR:
        raise ValueError(
            f"A condition shows the whole picture upright; {path} has the shape {condition.size} and its picture "
            f"{picture.size}. Make it anew from the upright picture."
        )
    return condition


def _write_png(image: Image.Image, path: Path) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    image.save(temporary, format="PNG")
    temporary.replace(path)


def _read_caption(picture: Path) -> str:
    path = picture.with_suffix(".txt")
    if not path.is_file():
        return ""
    text, note = decode_text(path.read_bytes())
    if note:
        print(f"{path}: {note}", file=sys.stderr)
    return " ".join(text.split())


class PhotographPairs:
    """Draws training pairs of photographs, see ``PairSource``; encodes them on the fly."""

    def __init__(self, photographs: Sequence[Photograph], vae: AutoencoderKL, views: Views) -> None:
        self.photographs, self.vae, self.views = list(photographs), vae, views
        self._pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))  # PIL decodes and resizes without the GIL

    def draw(self, generator: torch.Generator, batch_size: int) -> DrawnPairs:
        """Scaled latents (B, c, h, w) of images and of conditions, and captions."""
        images, conditions, captions = self.draw_pixels(generator, batch_size)
        with torch.autocast(self.vae.device.type, enabled=False):
            pixels = torch.cat([images, conditions]).to(self.vae.dtype)
            latents = encode_latents(self.vae, pixels, ENCODED_TOGETHER)
        return DrawnPairs(latents[:batch_size], latents[batch_size:], captions)

    def draw_pixels(self, generator: torch.Generator, batch_size: int) -> tuple[Tensor, Tensor, list[str]]:
        """Images and conditions (B, 3, H, W) in [-1, 1] of one working size, and captions."""
        size = random_size(self.views, generator)
        chosen = torch.randint(len(self.photographs), (batch_size,), generator=generator).tolist()
        chances = torch.rand(batch_size, 4, generator=generator).tolist()
        photographs = [self.photographs[index] for index in chosen]
        views = self._pool.map(lambda photograph, chance: self._view(photograph, size, chance), photographs, chances)
        images, conditions = zip(*views, strict=True)
        return torch.stack(images), torch.stack(conditions), [photograph.caption for photograph in photographs]

    def _view(self, photograph: Photograph, size: tuple[int, int], chances: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The same random part of a picture and of its condition, (3, H, W) each."""
        zoom, left, top, flip = chances
        parts = []
        for path, resample in (
            (photograph.picture, Image.Resampling.BICUBIC),
            (photograph.condition, Image.Resampling.BILINEAR),
        ):
            image = read_picture(path, self.views.kept_side_px)
            if not parts:
                box = crop_box(image.size, size, 1 - zoom * (1 - self.views.min_crop), left, top)
            pixels = [fraction * side for fraction, side in zip(box, (*image.size, *image.size), strict=True)]
            part = image.resize(size, resample, box=tuple(pixels))
            parts.append(to_model(ImageOps.mirror(part) if flip < self.views.flip_probability else part, size))
        return parts[0], parts[1]


def random_size(views: Views, generator: torch.Generator) -> tuple[int, int]:
    """A random working size (width, height) of constant area."""
    exponent = 2 * float(torch.rand((), generator=generator)) - 1
    aspect = views.max_aspect**exponent
    return working_size((round(1000 * aspect), 1000), area=views.resolution_px**2, multiple=views.multiple)


def crop_box(
    picture_size: tuple[int, int], size: tuple[int, int], zoom: float, left: float, top: float
) -> tuple[float, float, float, float]:
    """A part of a picture with the aspect ratio of ``size``, as fractions (left, top, right, bottom) of its sides.

    Args:
        picture_size, size: (width, height).
        zoom: 1 for the largest such part, less for a smaller one.
        left, top: 0 to 1, where the part lies in the room that is left.
    """
    aspect = (size[0] / size[1]) / (picture_size[0] / picture_size[1])
    width, height = zoom * min(1.0, aspect), zoom * min(1.0, 1 / aspect)
    x, y = left * (1 - width), top * (1 - height)
    return x, y, min(1.0, x + width), min(1.0, y + height)
