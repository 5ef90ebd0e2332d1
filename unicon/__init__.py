"""UniCon: one frozen Stable Diffusion that estimates and follows conditions (arXiv 2410.11439).

    from unicon import UniCon

`UniCon` is imported on first use, so that light parts (scenes, conditions, pairs) cost no diffusers import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unicon.model import UniCon

__all__ = ["UniCon"]


def __getattr__(name: str) -> Any:
    if name == "UniCon":
        from unicon.model import UniCon

        return UniCon
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
