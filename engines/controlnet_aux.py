"""The annotators of controlnet-aux: edges, lines, depth, normals and poses. `unicon.annotations` lists them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from engines.annotator_options import DETECT_PX, OPTIONS
from engines.estimator import MapEngine
from engines.family import Family
from engines.interfaces import Made, Size, Target
from engines.options import EngineOption, Value
from unicon.annotations import ANNOTATORS
from unicon.conditions import CONDITIONS


class ControlNetAux(Family):
    """See `Family`."""

    name, place, package, has_dtype = "controlnet-aux", "NAME", "controlnet-aux", False
    help = f"annotators: {', '.join(ANNOTATORS)}"

    def check(self, name: str) -> None:
        if name not in ANNOTATORS:
            raise ValueError(f"the annotators of controlnet-aux are {', '.join(ANNOTATORS)}; got {name[:60]!r}.")

    def modules(self, name: str) -> Sequence[str]:
        return ("controlnet_aux", *ANNOTATORS[name].modules)

    def options(self, name: str) -> Sequence[EngineOption]:
        return (DETECT_PX, *OPTIONS.get(name, ()))

    def weights(self, name: str, given: str | None) -> str | None:
        annotation = ANNOTATORS[name]
        if given is not None and not annotation.files:
            raise ValueError(f"the annotator {name} has no weights; got {given!r}. Leave them out.")
        if annotation.files and not (given or annotation.repository):
            raise ValueError(f"the annotator {name} needs a folder with {', '.join(annotation.files)}. Name it.")
        return given or (annotation.repository if annotation.files else None)

    def choose(self, name: str, names: Collection[str]) -> Collection[str]:
        annotation = ANNOTATORS[name]
        if missing := [file for file in annotation.files if file not in names]:
            source = f" They are in the hub repository {annotation.repository}." if annotation.repository else ""
            raise FileNotFoundError(f"the annotator {name} needs {', '.join(missing)}, which are absent.{source}")
        return annotation.files

    def makes(self, name: str, options: Mapping[str, Value], folder: Path | None) -> Made:
        kind = ANNOTATORS[name].kind
        return Made(name if kind == "edge" else kind, kind)

    def load(self, name: str, options: Mapping[str, Value], target: Target) -> MapEngine:
        return Annotating(name, options, target)


class Annotating(MapEngine):
    """An annotator, which processes one image after the other."""

    def __init__(self, name: str, options: Mapping[str, Value], target: Target) -> None:
        from unicon.training.annotators import make_annotator

        call = {"detect_px": DETECT_PX.default, **options}
        self.detect_px = int(call["detect_px"])
        self.annotate = make_annotator(name, weights=target.folder, device=target.device, **call)
        self.kind = CONDITIONS[ANNOTATORS[name].kind]
        self.red_is_left = name == "normalbae"

    def working_size(self, size: Size) -> Size:
        scale = self.detect_px / min(size) / 64
        return max(1, round(size[0] * scale)) * 64, max(1, round(size[1] * scale)) * 64

    def compute(self, prepared: Sequence[Image.Image], seeds: Sequence[int]) -> list[np.ndarray]:
        return [self._map(image) for image in prepared]

    def _map(self, image: Image.Image) -> np.ndarray:
        values = self.kind.decode(self.annotate(image))
        if self.red_is_left:
            values[..., 0] = 1.0 - values[..., 0]
        return values
