"""UniCon: a frozen Stable Diffusion that estimates and follows conditions (arXiv 2410.11439).

    from unicon import UniCon

The names here are imported on first use, so that importing light modules (scenes, pairs) does not import diffusers.

Tested in tests/unicon/test_model.py.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unicon.ensemble import Estimate
    from unicon.generation import Generated
    from unicon.model import UniCon

__all__ = ["Estimate", "Generated", "UniCon"]

_HOMES = {"Estimate": "unicon.ensemble", "Generated": "unicon.generation", "UniCon": "unicon.model"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
