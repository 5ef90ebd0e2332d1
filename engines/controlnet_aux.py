"""The annotators of controlnet-aux: edges, lines, depth, normals and poses. `unicon.annotations` lists them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from engines.estimator import MapEngine
from engines.interfaces import Made, Size
from engines.options import EngineOption
from engines.spec import EngineSpec
from unicon.annotations import ANNOTATORS

DETECT_PX = EngineOption(
    name="detect_px", help="shorter side at which an image is processed", kind=int, default=512, least=64, most=4096
)
OPTIONS: dict[str, tuple[EngineOption, ...]] = {
    "canny": (
        EngineOption(name="low_threshold", help="weak edges", kind=int, default=100, least=0, most=10_000),
        EngineOption(name="high_threshold", help="strong edges", kind=int, default=200, least=0, most=10_000),
    ),
    "hed": (EngineOption(name="safe", help="round to few levels", kind=bool, default=False),),
    "pidinet": (EngineOption(name="safe", help="round to few levels", kind=bool, default=False),),
    "teed": (EngineOption(name="safe_steps", help="levels of rounding", kind=int, default=2, least=0, most=10),),
    "lineart": (EngineOption(name="coarse", help="fewer, thicker lines", kind=bool, default=False),),
    "mlsd": (
        EngineOption(name="thr_v", help="lowest score of a line", kind=float, default=0.1, least=0, most=2),
        EngineOption(name="thr_d", help="shortest line", kind=float, default=0.1, least=0, most=20),
    ),
    "openpose": (
        EngineOption(name="include_hand", help="also hands", kind=bool, default=False),
        EngineOption(name="include_face", help="also faces", kind=bool, default=False),
    ),
}


class ControlNetAux:
    """See `engines.interfaces.Family`."""

    name, place, package, makes_images, has_dtype = "controlnet-aux", "NAME", "controlnet-aux", False, False
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

    def choose(self, name: str, names: Collection[str]) -> list[str]:
        annotation = ANNOTATORS[name]
        missing = [file for file in annotation.files if file not in names]
        if missing:
            source = f" They are in the hub repository {annotation.repository}." if annotation.repository else ""
            raise FileNotFoundError(f"the annotator {name} needs {', '.join(missing)}, which are absent.{source}")
        return list(annotation.files)

    def makes(self, spec: EngineSpec, folder: Path | None) -> Made:
        kind = ANNOTATORS[spec.name].kind
        return Made(spec.name if kind == "edge" else kind, kind)

    def load(self, spec: EngineSpec, folder: Path | None, device: str, dtype: str | None, base: Path | None) -> MapEngine:
        return Annotating(spec, folder, device)


class Annotating(MapEngine):
    """An annotator, which processes one image after the other."""

    def __init__(self, spec: EngineSpec, folder: Path | None, device: str) -> None:
        from unicon.conditions import CONDITIONS
        from unicon.training.annotators import make_annotator

        options = dict(spec.options)
        self.kind = CONDITIONS[ANNOTATORS[spec.name].kind]
        self.detect_px = int(options.pop("detect_px", DETECT_PX.default))
        self.annotate = make_annotator(spec.name, weights=folder, device=device, detect_px=self.detect_px, **options)
        self.is_mirrored = spec.name == "normalbae"

    def working_size(self, size: Size) -> Size:
        scale = self.detect_px / min(size) / 64
        return max(1, round(size[0] * scale)) * 64, max(1, round(size[1] * scale)) * 64

    def compute(self, prepared: Sequence[Image.Image], seeds: Sequence[int]) -> list[np.ndarray]:
        return [self._map(image) for image in prepared]

    def _map(self, image: Image.Image) -> np.ndarray:
        values = self.kind.decode(self.annotate(image))
        if self.is_mirrored:  # its red means left, as in NYU-V2's drawings of normals
            values = np.stack([1.0 - values[..., 0], values[..., 1], values[..., 2]], axis=-1)
        return values
