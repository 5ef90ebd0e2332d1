"""The options of the annotators of controlnet-aux: arguments of their calls."""

from __future__ import annotations

from engines.options import EngineOption

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
