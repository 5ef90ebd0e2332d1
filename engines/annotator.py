"""A loaded annotator of controlnet-aux, and the options of each: arguments of its calls.

Tested in tests/engines/test_controlnet_aux.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from engines.estimator import MapEngine
from engines.interfaces import Size, Target
from engines.options import EngineOption, Value
from unicon.annotations import ANNOTATORS
from unicon.conditions import CONDITIONS

DETECT_PX = EngineOption(
    name="detect_px", help="shorter side at which an image is processed", kind=int, default=512, least=64, most=4096
)
_SAFE = EngineOption(name="safe", help="round to few levels", kind=bool, default=False)
OPTIONS: dict[str, tuple[EngineOption, ...]] = {
    "canny": (
        EngineOption(name="low_threshold", help="of weak edges", kind=int, default=100, least=0, most=10_000),
        EngineOption(name="high_threshold", help="of strong edges", kind=int, default=200, least=0, most=10_000),
    ),
    "hed": (_SAFE,),
    "pidinet": (_SAFE,),
    "teed": (EngineOption(name="safe_steps", help="levels of rounding", kind=int, default=2, least=0, most=10),),
    "lineart": (EngineOption(name="coarse", help="fewer, thicker lines", kind=bool, default=False),),
    "mlsd": (
        EngineOption(name="thr_v", help="lowest score of a line", kind=float, default=0.1, least=0, most=2),
        EngineOption(name="thr_d", help="shortest line", kind=float, default=0.1, least=0, most=20),
    ),
    "openpose": (
        EngineOption(name="include_hand", help="also draw hands", kind=bool, default=False),
        EngineOption(name="include_face", help="also draw faces", kind=bool, default=False),
    ),
}
"""Annotator -> its own options."""


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
