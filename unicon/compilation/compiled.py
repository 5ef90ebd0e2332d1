"""`Compilation`: the calls of a model, compiled where its settings say so.

A call is a function of a module, static values and tensors, such as `unicon.unet_call.run_unet`. Every combination of
static values and shapes of tensors is compiled by itself, as a whole, so that nothing is compiled again for one that
has been seen. Batches are padded to few numbers of rows (`unicon.compilation.policy.compiled_rows`).

Tested in tests/unicon/compilation/test_compiled.py.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from unicon.compilation import cache
from unicon.compilation.cuda_graph import CudaGraph
from unicon.compilation.policy import (
    CACHED_SHARE,
    EXPECTED_COMPILE_S,
    EXPECTED_GAIN,
    LAUNCH_BOUND_ROWS,
    MOST_PADDING,
    CompileSettings,
    Forecast,
    compiled_rows,
)
from unicon.layout import Layout
from unicon.unet_call import run_unet

LOGGER = logging.getLogger(__name__)
T = TypeVar("T")

TIMED_CALLS = 3
"""Calls that are timed, after a first one that warms up, before mode "auto" decides."""
MAX_DIFFERENCE = 0.05
"""Largest relative difference of a compiled result from the uncompiled one, in the norm. In float16, 0.002 is usual."""

MAX_REASON = 300
"""Characters of the reason of a failure."""


@dataclass(kw_only=True)
class Shape:
    """A function of a module with given static values and shapes of tensors."""

    name: str
    """The same in every process."""
    is_launch_bound: bool
    """Whether its rows are so few that a CUDA device waits for launches."""
    calls: int = 0
    seconds: list[float] = field(default_factory=list)
    """Times of uncompiled calls."""
    captured: CudaGraph | None = None
    """Uncompiled calls as a CUDA graph."""
    compiled: Callable[..., Any] | None = None
    compile_s: float = 0.0


class Compilation:
    """Runs calls, compiled or not. If compiling fails, everything runs uncompiled from then on, with one warning."""

    def __init__(
        self, settings: CompileSettings = CompileSettings(), device: str | torch.device = "cpu", *,  # noqa: B008
        path: Path | None = None, backend: str | Callable[..., Any] = "inductor",
    ) -> None:  # fmt: skip
        """Compile nothing yet.

        Args:
            settings: Whether and when to compile.
            device: Where the model is.
            path: The file of the compiled code, see `unicon.compilation.cache`. None: it is not kept.
            backend: The compiler, as `torch.compile` takes it.
        """
        self.settings = settings
        self.failure = ""
        """Why compiling failed; empty if it did not."""
        self._device = torch.device(device)
        self._path = path
        self._backend = backend
        self._shapes: dict[Any, Shape] = {}
        self._rows_done = 0
        self._cached: dict[str, float] | None = None
        self._pool: Any = None

    @property
    def is_on(self) -> bool:
        """Whether calls are or may be compiled."""
        return not self.failure and self.settings.is_on(self._device.type)

    @property
    def compiled(self) -> dict[str, float]:
        """Name of every compiled shape -> seconds of compiling it."""
        shapes = list(self._shapes.values())  # other threads may add to them
        return {shape.name: shape.compile_s for shape in shapes if shape.compiled is not None}

    def describe(self) -> dict[str, Any]:
        """The summary for records.

        The mode; the number of shapes of calls that were seen, captured as CUDA graphs and compiled, and of those whose
        code was in the cache; the seconds of compiling; and why it failed, if it did.
        """
        compiled = self.compiled
        return {
            "mode": self.settings.mode,
            "shapes": len(self._shapes),
            "captured": sum(shape.captured is not None for shape in list(self._shapes.values())),
            "compiled": len(compiled),
            "from_cache": len(compiled.keys() & (self._cached or {}).keys()),
            "seconds": round(sum(compiled.values()), 1),
            **({"failure": self.failure} if self.failure else {}),
        }

    def num_rows(self, rows: int, most: int | None = None) -> int:
        """The number of rows to which a batch is padded. Batches are not padded where nothing is compiled."""
        padded = compiled_rows(rows, most) if self.is_on else rows
        if self.settings.mode == "auto" and (padded > MOST_PADDING * rows or not self.compiled):
            return rows
        return padded

    def start_batch(self, batch: Sequence[T], most: int | None = None) -> list[T]:
        """Count a micro-batch, and return it padded by repeating its last row.

        Args:
            batch: At least one row.
            most: The largest number of rows of a batch.
        """
        self._rows_done += len(batch)
        return [*batch, *[batch[-1]] * (self.num_rows(len(batch), most) - len(batch))]

    def run_rows(self, function: Callable[[Any, Tensor], Tensor], module: nn.Module, rows: Tensor) -> Tensor:
        """Run a function of a batch (B, ...) whose rows do not depend on each other; (B, ...)."""
        missing = self.num_rows(len(rows)) - len(rows)
        if not missing:
            return self.run(function, module, rows)
        padded = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
        return self.run(function, module, padded)[: len(rows)]

    def run_unet(
        self, unet: UNet2DConditionModel, layout: Layout, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor,
        *features: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Run `unicon.unet_call.run_unet`. Calls of few rows are captured as CUDA graphs where they are compiled."""
        return self.run(run_unet, unet, layout, latents, timesteps, prompt_embeds, *features, captures=True)

    def run(self, function: Callable[..., Any], module: nn.Module, *arguments: Any, captures: bool = False) -> Any:
        """Run `function(module, *arguments)`, compiled or not.

        Args:
            function: It has no state, and returns a tensor or a tuple of tensors.
            module: It does not change.
            arguments: Tensors, and static values that are hashable.
            captures: Whether calls of few rows wait for launches, and become CUDA graphs on a CUDA device.
        """
        if not self.is_on or torch.is_grad_enabled():
            return function(module, *arguments)
        arguments = tuple(_contiguous(each) for each in arguments)
        shape = self._shape(function, module, arguments, captures)
        shape.calls += 1
        if shape.compiled is None and self._wants(shape):
            return _contiguous(self._compile(shape, function, module, arguments))
        if shape.compiled is None:
            return _contiguous(self._uncompiled(shape, function, module, arguments))
        return _contiguous(shape.compiled(*_tensors(arguments)))

    def _shape(
        self, function: Callable[..., Any], module: nn.Module, arguments: Sequence[Any], captures: bool
    ) -> Shape:  # fmt: skip
        described = tuple((*each.shape, each.dtype) if isinstance(each, Tensor) else each for each in arguments)
        key = (function, module, described)
        if key not in self._shapes:
            num_rows = len(_tensors(arguments)[0])
            is_launch_bound = captures and self._device.type == "cuda" and num_rows <= LAUNCH_BOUND_ROWS
            name = f"{function.__name__} {_name(arguments)} of {type(module).__name__}"
            self._shapes[key] = Shape(name=name, is_launch_bound=is_launch_bound)
        return self._shapes[key]

    def _wants(self, shape: Shape) -> bool:
        """Whether to compile a shape now."""
        if self.settings.mode == "always":
            return True
        return len(shape.seconds) == TIMED_CALLS and self.forecast(shape).pays

    def forecast(self, shape: Shape) -> Forecast:
        """What compiling a shape would cost and save, by its timed calls."""
        known = list(self.compiled.values())
        compile_s = sum(known) / len(known) if known else EXPECTED_COMPILE_S
        return Forecast(
            calls_left=self.settings.calls_left(shape.calls, self._rows_done),
            call_s=min(shape.seconds),
            gain=EXPECTED_GAIN,
            compile_s=compile_s * (CACHED_SHARE if shape.name in self._in_cache() else 1.0),
        )

    def _uncompiled(
        self, shape: Shape, function: Callable[..., Any], module: nn.Module, arguments: Sequence[Any]
    ) -> Any:  # fmt: skip
        """Run a call that is not compiled. It is timed, unless it is the first one or enough have been timed."""
        if shape.calls == 1:
            return function(module, *arguments)
        if shape.is_launch_bound and shape.captured is None:
            self._capture(shape, function, module, arguments)
        call = shape.captured or _bound(function, module, arguments)
        if len(shape.seconds) == TIMED_CALLS:
            return call(*_tensors(arguments))
        self._synchronize()
        started = time.monotonic()
        outputs = call(*_tensors(arguments))
        self._synchronize()
        shape.seconds.append(time.monotonic() - started)
        return outputs

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _compile(self, shape: Shape, function: Callable[..., Any], module: nn.Module, arguments: Sequence[Any]) -> Any:
        """Compile a shape with its first call, which also runs uncompiled: to raise its own errors, and to compare."""
        expected = function(module, *arguments)
        self._in_cache()
        started = time.monotonic()
        try:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            compiled = torch.compile(
                _bound(function, module, arguments), fullgraph=True, dynamic=False, backend=self._backend
            )
            outputs = compiled(*_tensors(arguments))
            _check_equal(outputs, expected)
            if shape.is_launch_bound:
                compiled = self._graph(compiled, arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers fail in many ways, and none of them may end a run
            self._fail(error)
            return expected
        shape.compiled, shape.captured, shape.compile_s = compiled, None, time.monotonic() - started
        self._keep()
        return outputs

    def _capture(
        self, shape: Shape, function: Callable[..., Any], module: nn.Module, arguments: Sequence[Any]
    ) -> None:  # fmt: skip
        """Capture uncompiled calls of a shape, which takes no longer than a few of them."""
        try:
            shape.captured = self._graph(_bound(function, module, arguments), arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # as for compiling
            self._fail(error)

    def _graph(self, function: Callable[..., Any], arguments: Sequence[Any]) -> CudaGraph:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CudaGraph(function, _tensors(arguments), self._pool)

    def _fail(self, error: Exception) -> None:
        self.failure = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON]
        for _, module, _ in self._shapes:
            module.to(memory_format=torch.contiguous_format)  # results are then exactly those of "never"
        LOGGER.warning("Compiling failed; the model runs uncompiled, with the same results. %s", self.failure)

    def _in_cache(self) -> dict[str, float]:
        """The shapes whose code was kept by an earlier process, which is loaded once."""
        if self._cached is None:
            shared, path = self.settings.shared, self._path
            if shared is not None and path is not None and not path.exists():
                shared.fetch(path)
            self._cached = {} if path is None else cache.load(path)
        return self._cached

    def _keep(self) -> None:
        """Keep the code for other processes."""
        if self._path is not None and cache.save(self._path, self.compiled) and self.settings.shared is not None:
            self.settings.shared.publish(self._path)


def _contiguous(value: Any) -> Any:
    """Tensors without gaps, since compiled code is made for one layout in memory; other values as they are."""
    if isinstance(value, Tensor):
        return value.contiguous()
    return tuple(map(_contiguous, value)) if type(value) is tuple else value


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    return [each for each in arguments if isinstance(each, Tensor)]


def _name(arguments: Sequence[Any]) -> str:
    """The arguments of a call in text: shapes and types of tensors, and a hash of static values."""
    texts = [
        f"{'x'.join(map(str, each.shape))} {each.dtype}".replace("torch.", "")
        if isinstance(each, Tensor)
        else hashlib.sha256(repr(each).encode()).hexdigest()[:8]
        for each in arguments
    ]
    return ", ".join(dict.fromkeys(texts))


def _bound(function: Callable[..., Any], module: nn.Module, arguments: Sequence[Any]) -> Callable[..., Any]:
    """The function of the tensors alone.

    It has code of its own: torch keeps what it compiled by the code of the function, at most eight times for each.
    """
    static = [None if isinstance(each, Tensor) else (each,) for each in arguments]

    def call(*tensors: Tensor) -> Any:
        given = iter(tensors)
        return function(module, *[next(given) if each is None else each[0] for each in static])

    return FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)


def _check_equal(outputs: Any, expected: Any) -> None:
    """Raise ArithmeticError if compiled results are far from those that were expected, as a wrong kernel's are."""
    for ours, theirs in zip(_as_tuple(outputs), _as_tuple(expected), strict=True):
        apart = (ours.float() - theirs.float()).norm() / theirs.float().norm().clamp_min(1e-12)
        if bool(theirs.isfinite().all()) and not bool(apart <= MAX_DIFFERENCE):
            raise ArithmeticError(f"the compiled result differs from the uncompiled one by {float(apart):.2g}")


def _as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
