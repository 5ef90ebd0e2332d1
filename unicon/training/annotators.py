"""Annotators: making conditions of photographs with the package controlnet-aux.

Edges are hard (`canny` of OpenCV, which needs no weights) or soft (`hed`, `pidinet`, ...). An adapter follows the kind
of edges that it was trained on; the official edge adapter was trained on `hed`. `midas` (DPT-hybrid) makes depth maps,
and `openpose` (licensed by its authors for non-commercial use only) makes poses. Weights are mostly those of
`lllyasviel/Annotators`, from the hub or from a folder, and are read as tensors only (`unicon.training.detectors`).

Source: arXiv 2410.11439, appendix A (conditions of the training images); https://github.com/huggingface/controlnet_aux.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from PIL import Image

from unicon.annotations import ANNOTATIONS, ANNOTATORS, DEFAULTS, WEIGHTS, Annotation
from unicon.training.detectors import load_detector

__all__ = ["ANNOTATIONS", "ANNOTATORS", "DEFAULTS", "WEIGHTS", "Annotation", "Annotator", "choose_annotator",
           "find_weights", "make_annotator"]  # fmt: skip

DETECT_MULTIPLE_PX = 64
"""controlnet-aux works at sides that are multiples of this."""

Annotator = Callable[[Image.Image], Image.Image]
"""RGB image -> its condition as an RGB image of the same size."""


def choose_annotator(kind: str, named: str | None = None, weights: str | None = None) -> tuple[str, str | None]:
    """Choose (name, weights) of the annotator that makes a kind of condition.

    Args:
        kind: A key of `DEFAULTS`.
        named: A key of `ANNOTATORS`; or, as in earlier versions, the weights of the kind's default annotator.
        weights: A folder or hub id.

    Raises:
        ValueError: The annotator is unknown or of another kind, or weights are given for one that has none.
    """
    of_kind = [name for name, annotation in ANNOTATORS.items() if annotation.kind == kind]
    name = named or DEFAULTS[kind]
    if name not in ANNOTATORS and weights is None and ("/" in name or os.path.isdir(name)):
        name, weights = DEFAULTS[kind], name
    if name not in of_kind:
        raise ValueError(
            f"The annotators that make {kind} maps are {', '.join(of_kind)}; got {name!r}. Name one of them, or give "
            "finished maps with --conditions."
        )
    if weights is not None and not ANNOTATORS[name].files:
        others = [other for other in of_kind if ANNOTATORS[other].files]
        raise ValueError(
            f"The annotator {name} has no weights; got {weights!r}. Leave them out, or name one that has: "
            f"{', '.join(others)}."
        )
    return name, weights


def make_annotator(
    kind: str, *, weights: str | Path | None = None, device: str = "cpu", detect_px: int = 512, **call: Any
) -> Annotator:
    """Load an annotator.

    Args:
        kind: A key of `ANNOTATORS`, or a kind of condition for its default.
        weights: A folder with the annotator's files, or a hub id. The default is the annotator's own repository.
        device: The device on which the annotator runs.
        detect_px: Shorter side at which it processes an image, rounded to a multiple of 64.
        call: Arguments of the detector's call, such as `low_threshold` of `canny`.

    Raises:
        ValueError: The kind is unknown, or the weights are more than tensors.
        FileNotFoundError: The weights are absent and cannot be fetched.
        ImportError: controlnet-aux is not installed.
    """
    known = {**ANNOTATIONS, **ANNOTATORS}
    if kind not in known:
        raise ValueError(
            f"A condition that can be made is one of {sorted(known)}; got {kind!r}. "
            "Correct the name, or make the conditions yourself and give them as files."
        )
    annotation = known[kind]
    folder = find_weights(annotation, weights) if annotation.files else None
    detector = load_detector(annotation, folder, device)
    detect_px = max(1, round(detect_px / DETECT_MULTIPLE_PX)) * DETECT_MULTIPLE_PX
    size = {"image_resolution": detect_px} if annotation.is_resized else {}
    options = {"detect_resolution": detect_px, "output_type": "pil", **size, **call}

    def annotate(image: Image.Image) -> Image.Image:
        found = detector(image, **options)
        return found.convert("RGB").resize(image.size, Image.Resampling.BILINEAR)

    return annotate


def find_weights(annotation: Annotation, weights: str | Path | None = None) -> Path:
    """The folder that holds an annotator's files: the user's folder, or one in the hub cache.

    Raises:
        FileNotFoundError: A file is missing, or the hub cannot be reached.
    """
    source = str(weights or annotation.repository)
    try:
        folder = Path(source) if os.path.isdir(source) else Path(_fetch(source, annotation.files))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, ConnectionError, ValueError) as error:
        raise FileNotFoundError(
            f"{annotation.detector} needs {', '.join(annotation.files)}, from a folder or a hub id; {source!r} is no "
            f"folder, is not in the hub cache and cannot be fetched ({type(error).__name__}). Fetch the files where "
            f"there is network (hf download {annotation.repository or 'OWNER/NAME'}) and give their folder, or give "
            "finished conditions."
        ) from error
    missing = [name for name in annotation.files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{annotation.detector} needs {', '.join(annotation.files)}; {source} lacks {', '.join(missing)}. "
            f"Fetch them from the hub repository {annotation.repository or 'of their author'}."
        )
    return folder


def _fetch(repository: str, files: tuple[str, ...]) -> str:
    return snapshot_download(repository, allow_patterns=list(files))
