"""Annotators: making conditions of photographs with the package controlnet-aux.

Edges are hard (`canny` of OpenCV, which needs no weights) or soft (`hed`, `pidinet`). An adapter follows the kind of
edges that it was trained on; the official edge adapter was trained on `hed`. `midas` (DPT-hybrid) makes depth maps, and
`openpose` (licensed by its authors for non-commercial use only) makes poses. Weights are those of
`lllyasviel/Annotators`, from the hub or from a folder.

These weights are pickles (.pt, .pth), which controlnet-aux reads with a plain `torch.load`. Here they are read as
tensors only (`TORCH_FORCE_WEIGHTS_ONLY_LOAD`), so that a file cannot run code; one that would is refused.

Source: arXiv 2410.11439, appendix A (conditions of the training images); https://github.com/huggingface/controlnet_aux.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from PIL import Image

WEIGHTS = "lllyasviel/Annotators"
"""Hub repository of the annotators' weights."""
DETECT_MULTIPLE_PX = 64
"""controlnet-aux works at sides that are multiples of this."""

Annotator = Callable[[Image.Image], Image.Image]
"""RGB image -> its condition as an RGB image of the same size."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One way to make a kind of condition."""

    kind: str
    """Kind of condition."""
    detector: str
    """Name of the class in `controlnet_aux`."""
    files: tuple[str, ...] = ()
    """Names of its weight files in the hub repository or the user's folder."""
    mirrors: bool = True
    """Whether the condition of a mirrored image is the mirrored condition. False for poses, since the colors of a
    skeleton tell left limbs from right ones."""


ANNOTATORS: dict[str, Annotation] = {
    "canny": Annotation(kind="edge", detector="CannyDetector"),
    "hed": Annotation(kind="edge", detector="HEDdetector", files=("ControlNetHED.pth",)),
    "pidinet": Annotation(kind="edge", detector="PidiNetDetector", files=("table5_pidinet.pth",)),
    "midas": Annotation(kind="depth", detector="MidasDetector", files=("dpt_hybrid-midas-501f0c75.pt",)),
    "openpose": Annotation(
        kind="pose",
        detector="OpenposeDetector",
        files=("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth"),
        mirrors=False,
    ),
}
"""Every annotator by name. Depth maps are 0 (black) far and 255 near."""
DEFAULTS = {"edge": "canny", "depth": "midas", "pose": "openpose"}
"""Kind of condition -> its default annotator."""
ANNOTATIONS: dict[str, Annotation] = {kind: ANNOTATORS[name] for kind, name in DEFAULTS.items()}


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
    kind: str, *, weights: str | Path | None = None, device: str = "cpu", detect_px: int = 512
) -> Annotator:
    """Load an annotator.

    Args:
        kind: A key of `ANNOTATORS`, or a kind of condition for its default.
        weights: A folder with the annotator's files, or a hub id. The default is `WEIGHTS`.
        device: The device on which the annotator runs.
        detect_px: Shorter side at which it processes an image, rounded to a multiple of 64.

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
    detector_class = getattr(_controlnet_aux(), annotation.detector)
    detector = detector_class() if folder is None else _load(detector_class, folder).to(device)
    detect_px = max(1, round(detect_px / DETECT_MULTIPLE_PX)) * DETECT_MULTIPLE_PX

    def annotate(image: Image.Image) -> Image.Image:
        found = detector(image, detect_resolution=detect_px, image_resolution=detect_px, output_type="pil")
        return found.convert("RGB").resize(image.size, Image.Resampling.BILINEAR)

    return annotate


def find_weights(annotation: Annotation, weights: str | Path | None = None) -> Path:
    """The folder that holds an annotator's files: the user's folder, or one in the hub cache.

    Raises:
        FileNotFoundError: A file is missing, or the hub cannot be reached.
    """
    source = str(weights or WEIGHTS)
    try:
        folder = Path(source) if os.path.isdir(source) else Path(_fetch(source, annotation.files))
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, ConnectionError, ValueError) as error:
        raise FileNotFoundError(
            f"{annotation.detector} needs {', '.join(annotation.files)}, from a folder or a hub id; {source!r} is no "
            f"folder, is not in the hub cache and cannot be fetched ({type(error).__name__}). Fetch the files where "
            f"there is network (hf download {WEIGHTS}) and give their folder, or give finished conditions."
        ) from error
    missing = [name for name in annotation.files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{annotation.detector} needs {', '.join(annotation.files)}; {source} lacks {', '.join(missing)}. "
            f"Fetch them from the hub repository {WEIGHTS}."
        )
    return folder


def _fetch(repository: str, files: tuple[str, ...]) -> str:
    return snapshot_download(repository, allow_patterns=list(files))


def _load(detector_class: Any, folder: Path) -> Any:
    """A detector with its weights, read as tensors only."""
    try:
        with _tensors_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return detector_class.from_pretrained(str(folder))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Weights of an annotator are tensors and nothing else; a file in {folder} is damaged or would run "
            f"code: {str(error).splitlines()[0]} Fetch the files again from {WEIGHTS}."
        ) from error


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Make every `torch.load` in the context read tensors only, whatever the caller or the environment says."""
    switches = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name) for name in switches if name in os.environ}
    os.environ[switches[0]] = "1"
    try:
        yield
    finally:
        del os.environ[switches[0]]
        os.environ.update(before)


def _controlnet_aux() -> Any:
    """The package. It is imported late because that takes seconds, and without its warnings about unused parts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import controlnet_aux
    except ImportError as error:
        raise ImportError(
            f"Conditions of photographs are made by the package controlnet-aux; importing it failed: {error}. "
            "pip install controlnet-aux, or give finished conditions."
        ) from error
    return controlnet_aux
