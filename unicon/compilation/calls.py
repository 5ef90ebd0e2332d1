"""`Call`: a function of a module, static values and tensors, as a value that can be compared, named and compiled.

Tested in tests/unicon/compilation/test_compiled.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

MAX_DIFFERENCE = 0.05
"""Largest relative difference of a compiled result from the uncompiled one, in the norm. In float16, 0.002 is usual."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of `function(module, *arguments)`."""

    function: Callable[..., Any]
    """It has no state, and returns a tensor or a tuple of tensors."""
    module: nn.Module
    arguments: tuple[Any, ...]
    """Tensors, at least one, and static values that are hashable."""

    @property
    def tensors(self) -> list[Tensor]:
        """The arguments that are tensors."""
        return [each for each in self.arguments if isinstance(each, Tensor)]

    @property
    def key(self) -> Any:
        """What compiled code is made for: everything but the values of the tensors."""
        described = tuple((*each.shape, each.dtype) if isinstance(each, Tensor) else each for each in self.arguments)
        return self.function, self.module, described

    @property
    def name(self) -> str:
        """The key as text, the same in every process: shapes and types of tensors, and a hash of static values."""
        texts = [
            f"{'x'.join(map(str, each.shape))} {each.dtype}".replace("torch.", "")
            if isinstance(each, Tensor)
            else hashlib.sha256(repr(each).encode()).hexdigest()[:8]
            for each in self.arguments
        ]
        return f"{self.function.__name__} {', '.join(dict.fromkeys(texts))} of {type(self.module).__name__}"

    def run(self) -> Any:
        """Run the call as it is."""
        return self.function(self.module, *self.arguments)

    def of_tensors(self) -> Callable[..., Any]:
        """The function of the tensors alone.

        It has code of its own: torch keeps what it compiled by the code of the function, at most eight times for each.
        """
        function, module = self.function, self.module
        static = [None if isinstance(each, Tensor) else (each,) for each in self.arguments]

        def call(*tensors: Tensor) -> Any:
            given = iter(tensors)
            return function(module, *[next(given) if each is None else each[0] for each in static])

        return FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)


def contiguous(value: Any) -> Any:
    """Tensors without gaps, since compiled code is made for one layout in memory; other values as they are."""
    if isinstance(value, Tensor):
        return value.contiguous()
    return tuple(map(contiguous, value)) if type(value) is tuple else value


def check_equal(outputs: Any, expected: Any) -> None:
    """Raise ArithmeticError if compiled results are far from those that were expected, as a wrong kernel's are."""
    for ours, theirs in zip(_as_tuple(outputs), _as_tuple(expected), strict=True):
        apart = (ours.float() - theirs.float()).norm() / theirs.float().norm().clamp_min(1e-12)
        if bool(theirs.isfinite().all()) and not bool(apart <= MAX_DIFFERENCE):
            raise ArithmeticError(f"the compiled result differs from the uncompiled one by {float(apart):.2g}")


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
