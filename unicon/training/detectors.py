# controlnet-aux has no types.
# pyright: reportMissingImports=false
"""Building the detectors of controlnet-aux from files, and calling them.

The weights are pickles (.pt, .pth), which controlnet-aux reads with a plain `torch.load`. Here they are read as tensors
only (`TORCH_FORCE_WEIGHTS_ONLY_LOAD`), so that a file cannot run code; one that would is refused.

Three detectors are built or called differently than their package does, since it hides failures or has side effects:
ZoeDepth is refused if weights are missing, MLSD passes on the exceptions of its network, and LeReS is built without
the network that only its boosting uses.

Tested in tests/unicon/training/test_annotators.py and tests/engines/test_controlnet_aux.py.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from unicon.annotations import Annotation


def load_detector(annotation: Annotation, folder: Path | None, device: str = "cpu") -> Any:
    """Build a detector on a device, in evaluation mode.

    Args:
        annotation: What to build.
        folder: The folder with its files; None for one that has none.
        device: The device of its networks.

    Raises:
        ImportError: controlnet-aux, or a module that the detector needs, is not installed.
        ValueError: The files do not fit, or are more than tensors.
    """
    detector_class = getattr(controlnet_aux(annotation), annotation.detector)
    if folder is None:
        return detector_class()
    load = _LOADERS.get(annotation.detector, _from_pretrained)
    try:
        with tensors_only(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            detector = load(detector_class, annotation, folder)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Weights of an annotator are tensors and nothing else; a file in {folder} is damaged or would run "
            f"code: {str(error).splitlines()[0]} Fetch the files again from {annotation.repository or 'their author'}."
        ) from error
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"{annotation.detector} needs the weights of {', '.join(annotation.files)}; those in {folder} are others: "
            f"{str(error).splitlines()[0][:200]} Fetch the files again."
        ) from error
    return _in_evaluation_mode(detector.to(device))


def controlnet_aux(annotation: Annotation | None = None) -> Any:
    """Return the package. It is imported late because that takes seconds, and without warnings about unused parts.

    Raises:
        ImportError: It is not installed, or a module that the annotation needs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import controlnet_aux as package

            for name in () if annotation is None else annotation.modules:
                __import__(name)
    except ImportError as error:
        needed = "" if annotation is None else " ".join(annotation.modules)
        raise ImportError(
            f"Conditions of photographs are made by the package controlnet-aux; importing it failed: {error}. "
            f"pip install controlnet-aux{needed and f' {needed}'}, or give finished conditions."
        ) from error
    return package


@contextmanager
def tensors_only() -> Iterator[None]:
    """Make every `torch.load` in the context read tensors only, whatever the caller or the environment says."""
    switches = ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    before = {name: os.environ.pop(name) for name in switches if name in os.environ}
    os.environ[switches[0]] = "1"
    try:
        yield
    finally:
        del os.environ[switches[0]]
        os.environ.update(before)


def _from_pretrained(detector_class: Any, annotation: Annotation, folder: Path) -> Any:
    return detector_class.from_pretrained(str(folder))


def _load_teed(detector_class: Any, annotation: Annotation, folder: Path) -> Any:
    """The class has no default file name."""
    return detector_class.from_pretrained(str(folder), filename=annotation.files[0])


def _load_zoe(detector_class: Any, annotation: Annotation, folder: Path) -> Any:
    """The class loads what fits, and leaves the rest at random: check that no weight is missing."""
    import torch

    detector = detector_class.from_pretrained(str(folder))
    there = torch.load(folder / annotation.files[0], map_location="cpu", mmap=True)["model"]
    missing = sorted({name for name, _ in detector.model.named_parameters()} - set(there))
    if missing:
        raise KeyError(f"{len(missing)} weights are missing ({', '.join(missing[:3])}).")
    return detector


def _load_leres(detector_class: Any, annotation: Annotation, folder: Path) -> Any:
    """The class reads a second network and writes a file of settings into the working folder."""
    import torch
    from controlnet_aux.leres import RelDepthModel, strip_prefix_if_present

    stored = torch.load(folder / annotation.files[0], map_location="cpu")["depth_model"]
    model = RelDepthModel(backbone="resnext101")
    model.load_state_dict(strip_prefix_if_present(stored, "module."), strict=True)
    return detector_class(model, None)


def _load_mlsd(detector_class: Any, annotation: Annotation, folder: Path) -> Any:
    return _LoudMlsd(_from_pretrained(detector_class, annotation, folder))


class _LoudMlsd:
    """The detector of straight lines, which returns an empty image where its network raises an exception."""

    def __init__(self, detector: Any) -> None:
        self.detector, self.network = detector, detector.model
        self.raised: Exception | None = None
        detector.model = self

    def __call__(self, image: Any, **options: Any) -> Any:
        """Call the detector, or the network if the detector calls this."""
        if not options:
            return self._run(image)
        self.raised = None
        found = self.detector(image, **options)
        if self.raised is not None:
            raise self.raised
        return found

    def _run(self, pixels: Any) -> Any:
        try:
            return self.network(pixels)
        except Exception as error:
            self.raised = error
            raise

    def parameters(self) -> Iterator[Any]:
        return self.network.parameters()

    def to(self, device: str) -> _LoudMlsd:
        self.network.to(device)
        return self


def _load_dwpose(detector_class: Any, annotation: Annotation, folder: Path) -> Any:
    detection, pose = (str(folder / name) for name in annotation.files)
    return detector_class(det_ckpt=detection, pose_ckpt=pose)


_LOADERS: dict[str, Callable[[Any, Annotation, Path], Any]] = {
    "TEEDdetector": _load_teed,
    "ZoeDetector": _load_zoe,
    "LeresDetector": _load_leres,
    "MLSDdetector": _load_mlsd,
    "DWposeDetector": _load_dwpose,
}


def _in_evaluation_mode(detector: Any) -> Any:
    """Switch off what only training uses; not every detector does that."""
    for part in vars(detector).values():
        if hasattr(part, "eval"):
            part.eval()
    return detector
