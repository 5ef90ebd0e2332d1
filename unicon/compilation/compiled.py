"""`Compilation`: the calls of a model, compiled where its settings say so.

Every combination of static values and shapes of tensors is compiled by itself, as a whole, so that nothing is compiled
again for one that has been seen. Batches are padded to few numbers of rows (`unicon.compilation.policy.compiled_rows`).

Tested in tests/unicon/compilation/.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from unicon.compilation import cache
from unicon.compilation.calls import Call, check_equal, contiguous
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
MAX_REASON = 300
"""Characters of the reason of a failure."""


@dataclass(kw_only=True)
class Shape:
    """What is known about calls of one function of a module with the same static values and shapes of tensors."""

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
    """Runs calls, compiled or not. If compiling fails, everything runs uncompiled from then on, with one warning.

    `start_batch` may be called by several threads, the methods that run calls by one at a time.
    """

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
        self._most: int | None = None
        """The largest number of rows of a batch, as the last one said."""
        self._channels_last: set[nn.Module] = set()
        """Modules whose weights were converted to channels_last."""
        self._cached: dict[str, float] | None = None
        self._pool: Any = None

    @property
    def is_on(self) -> bool:
        """Whether calls are or may be compiled."""
        return not self.failure and self.settings.is_on(self._device.type)

    @property
    def compiled(self) -> dict[str, float]:
        """Name of every compiled shape -> seconds of compiling it."""
        shapes = list(self._shapes.values())  # another thread may add to them
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
        self._most = most
        return [*batch, *[batch[-1]] * (self.num_rows(len(batch), most) - len(batch))]

    def run_rows(self, function: Callable[[Any, Tensor], Tensor], module: nn.Module, rows: Tensor) -> Tensor:
        """Run a function of a batch (B, ...) whose rows do not depend on each other; (B, ...)."""
        missing = self.num_rows(len(rows), self._most) - len(rows)
        if not missing:
            return self.run(function, module, rows)
        padded = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
        return self.run(function, module, padded)[: len(rows)]

    def run_unet(
        self, unet: UNet2DConditionModel, layout: Layout, latents: Tensor, timesteps: Tensor, prompt_embeds: Tensor,
        *features: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Run `unicon.unet_call.run_unet`. Calls of few rows become CUDA graphs."""
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
        call = Call(function, module, contiguous(arguments))
        shape = self._shape(call, captures)
        shape.calls += 1
        if shape.compiled is not None:
            outputs = shape.compiled(*call.tensors)
        else:
            outputs = self._compile(shape, call) if self._wants(shape) else self._uncompiled(shape, call)
        return contiguous(outputs)

    def _shape(self, call: Call, captures: bool) -> Shape:
        key = call.key
        if key not in self._shapes:
            has_few_rows = len(call.tensors[0]) <= LAUNCH_BOUND_ROWS
            is_launch_bound = captures and has_few_rows and self._device.type == "cuda"
            self._shapes[key] = Shape(name=call.name, is_launch_bound=is_launch_bound)
        return self._shapes[key]

    def _wants(self, shape: Shape) -> bool:
        """Whether to compile a shape now."""
        if self.settings.mode == "always":
            return True
        return len(shape.seconds) == TIMED_CALLS and self._forecast(shape).pays

    def _forecast(self, shape: Shape) -> Forecast:
        """What compiling a shape would cost and save, by its timed calls."""
        known = list(self.compiled.values())
        compile_s = sum(known) / len(known) if known else EXPECTED_COMPILE_S
        return Forecast(
            calls_left=self.settings.calls_left(shape.calls, self._rows_done),
            call_s=min(shape.seconds),
            gain=EXPECTED_GAIN,
            compile_s=compile_s * (CACHED_SHARE if shape.name in self._in_cache() else 1.0),
        )

    def _uncompiled(self, shape: Shape, call: Call) -> Any:
        """Run a call that is not compiled. It is timed, unless it is the first one or enough have been timed."""
        if shape.calls == 1:
            return call.run()
        if shape.is_launch_bound and shape.captured is None:
            self._capture(shape, call)
        if len(shape.seconds) == TIMED_CALLS:
            return self._run_uncompiled(shape, call)
        self._synchronize()
        started = time.monotonic()
        outputs = self._run_uncompiled(shape, call)
        self._synchronize()
        shape.seconds.append(time.monotonic() - started)
        return outputs

    @staticmethod
    def _run_uncompiled(shape: Shape, call: Call) -> Any:
        return call.run() if shape.captured is None else shape.captured(*call.tensors)

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _compile(self, shape: Shape, call: Call) -> Any:
        """Compile a shape with its first call, which also runs uncompiled: to raise its own errors, and to compare."""
        expected = call.run()
        self._in_cache()
        started = time.monotonic()
        try:
            self._to_channels_last(call.module)
            function = call.of_tensors()
            compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=self._backend)
            outputs = compiled(*call.tensors)
            check_equal(outputs, expected)
            shape.compiled = self._graph(compiled, call, expected) if shape.is_launch_bound else compiled
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers fail in many ways, and none of them may end a run
            self._fail(error)
            return expected
        shape.captured, shape.compile_s = None, time.monotonic() - started
        self._keep()
        return outputs

    def _to_channels_last(self, module: nn.Module) -> None:
        """Store the weights as compiled convolutions read them. Graphs that read the old ones are captured again."""
        if module in self._channels_last:
            return
        self._channels_last.add(module)
        for (_, owner, _), shape in self._shapes.items():
            if owner is module:
                shape.captured = None
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _capture(self, shape: Shape, call: Call) -> None:
        """Capture uncompiled calls of a shape, which takes no longer than a few of them."""
        try:
            shape.captured = self._graph(call.of_tensors(), call, call.run())
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # as for compiling
            self._fail(error)

    def _graph(self, function: Callable[..., Any], call: Call, expected: Any) -> CudaGraph:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = CudaGraph(function, call.tensors, self._pool)
        check_equal(graph(*call.tensors), expected)
        return graph

    def _fail(self, error: Exception) -> None:
        self.failure = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON]
        for module in self._channels_last:
            module.to(memory_format=torch.contiguous_format)  # results are then exactly those of "never"
        LOGGER.warning("Compiling failed; the model runs uncompiled, with the same results. %s", self.failure)

    def _in_cache(self) -> dict[str, float]:
        """The shapes whose code was kept by an earlier process, which is loaded once."""
        if self._cached is None:
            if self.settings.shared is not None and self._path is not None and not self._path.exists():
                self.settings.shared.fetch(self._path)
            self._cached = {} if self._path is None else cache.load(self._path)
        return self._cached

    def _keep(self) -> None:
        """Keep the code for other processes."""
        if self._path is not None and cache.save(self._path, self.compiled) and self.settings.shared is not None:
            self.settings.shared.publish(self._path)
