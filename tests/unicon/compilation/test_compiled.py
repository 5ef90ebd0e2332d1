"""The dispatch of calls: which are compiled, padded, timed, or run uncompiled after a failure.

Torch's "eager" backend traces like any other, and then runs the operations as they are: these tests need no compiler.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unicon.compilation.compiled import TIMED_CALLS, Compilation
from unicon.compilation.policy import CompileSettings

ALWAYS = CompileSettings(mode="always")


class Scaled(nn.Module):
    """A module whose result depends on a static value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1).requires_grad_(False)

    def forward(self, rows: Tensor, factor: float) -> Tensor:
        return self.conv(rows) * factor


def scale(module: Scaled, factor: float, rows: Tensor) -> Tensor:
    return module(rows, factor)


def doubled(module: Scaled, rows: Tensor) -> Tensor:
    return module(rows, 2.0)


class CountingBackend:
    """Torch's "eager" backend, counting what it compiles."""

    def __init__(self) -> None:
        self.compiled = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.compiled += 1
        return graph.forward


@pytest.fixture
def module() -> Scaled:
    torch.manual_seed(0)
    return Scaled()


@torch.no_grad()
def test_every_shape_and_static_value_is_compiled_once(module: Scaled) -> None:
    backend = CountingBackend()
    compilation = Compilation(ALWAYS, backend=backend)
    calls = [(factor, torch.randn(rows, 2, side, 4)) for factor in (1.0, 3.0) for rows in (1, 2, 3) for side in (4, 6)]
    for _ in range(3):
        for factor, rows in calls:
            assert torch.allclose(compilation.run(scale, module, factor, rows), scale(module, factor, rows))
    assert backend.compiled == len(calls) == len(compilation.compiled) == 12
    transposed = torch.randn(1, 2, 4, 4).transpose(2, 3)
    assert torch.allclose(compilation.run(scale, module, 1.0, transposed), scale(module, 1.0, transposed))
    assert backend.compiled == 12
    assert compilation.describe() == {
        "mode": "always", "shapes": 12, "captured": 0, "compiled": 12, "from_cache": 0,
        "seconds": compilation.describe()["seconds"],
    }  # fmt: skip


@torch.no_grad()
def test_batches_are_padded_to_compiled_numbers_of_rows(module: Scaled) -> None:
    backend = CountingBackend()
    compilation = Compilation(ALWAYS, backend=backend)
    for rows in range(1, 9):
        batch = torch.randn(rows, 2, 4, 4)
        result = compilation.run_rows(doubled, module, batch)
        assert result.shape[0] == rows
        assert torch.allclose(result, doubled(module, batch), atol=1e-6)
    assert backend.compiled == 4
    assert compilation.start_batch(["a", "b", "c"], 8) == ["a", "b", "c", "c"]
    assert compilation.start_batch(["a", "b", "c"], 3) == ["a", "b", "c"]
    compilation.run_rows(doubled, module, torch.randn(3, 2, 4, 4))
    assert backend.compiled == 5
    assert Compilation().start_batch(["a", "b", "c"], 8) == ["a", "b", "c"]


def test_calls_that_need_gradients_and_those_of_mode_never_run_as_they_are(module: Scaled) -> None:
    backend = CountingBackend()
    rows = torch.randn(1, 2, 4, 4, requires_grad=True)
    compilation = Compilation(ALWAYS, backend=backend)
    assert compilation.run(doubled, module, rows).requires_grad
    with torch.no_grad():
        Compilation(backend=backend).run(doubled, module, rows)
        Compilation(CompileSettings(mode="auto"), "cpu", backend=backend).run(doubled, module, rows)
    assert backend.compiled == 0


def failing(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no compiler at hand")


def wrong(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    return lambda *arguments: [1.5 * output for output in graph.forward(*arguments)]


@pytest.mark.parametrize(("backend", "reason"), [(failing, "no compiler at hand"), (wrong, "differs .* by 0.5")])
@torch.no_grad()
def test_a_failure_of_the_compiler_is_said_once_and_changes_nothing(
    module: Scaled, backend: Callable[..., Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = torch.randn(2, 2, 4, 4)
    expected = doubled(module, rows)
    compilation = Compilation(ALWAYS, backend=backend)
    with caplog.at_level(logging.WARNING, "unicon"):
        results = [compilation.run(doubled, module, rows) for _ in range(3)]
        results.append(compilation.run_rows(doubled, module, torch.cat([rows, rows[:1]]))[:2])
    assert all(torch.equal(result, expected) for result in results)
    (record,) = [record for record in caplog.records if record.name.startswith("unicon")]
    assert record.getMessage().startswith("Compiling failed; the model runs uncompiled, with the same results. ")
    assert "\n" not in record.getMessage()
    assert compilation.describe()["compiled"] == 0
    assert re.search(reason, compilation.failure)


@torch.no_grad()
def test_errors_of_the_call_itself_are_raised(module: Scaled) -> None:
    compilation = Compilation(ALWAYS, backend=CountingBackend())
    with pytest.raises(RuntimeError, match="channels"):
        compilation.run(doubled, module, torch.randn(1, 5, 4, 4))
    assert compilation.is_on


class AutoOnCpu(CompileSettings):
    """Mode "auto" that takes the CPU for a CUDA device."""

    def is_on(self, device_type: str) -> bool:
        return super().is_on("cuda" if device_type == "cpu" else device_type)


@torch.no_grad()
def test_mode_auto_starts_uncompiled_and_compiles_where_enough_work_is_left(module: Scaled) -> None:
    def shapes_compiled(rows_expected: int) -> tuple[int, int]:
        backend = CountingBackend()
        compilation = Compilation(AutoOnCpu(mode="auto", rows_expected=rows_expected), backend=backend)
        for _ in range(TIMED_CALLS + 1):
            compilation.start_batch([0, 1])
            compilation.run(doubled, module, torch.randn(2, 2, 4, 4))
        before = backend.compiled
        compilation.run(doubled, module, torch.randn(2, 2, 4, 4))
        compilation.run(doubled, module, torch.randn(3, 2, 4, 4))
        return before, backend.compiled

    assert shapes_compiled(10**12) == (0, 1)
    assert shapes_compiled(100) == (0, 0)


@torch.no_grad()
def test_mode_auto_pads_only_to_compiled_numbers_of_rows_nearby(module: Scaled) -> None:
    compilation = Compilation(AutoOnCpu(mode="auto", rows_expected=10**12), backend=CountingBackend())
    assert compilation.num_rows(7, 8) == 7
    for _ in range(TIMED_CALLS + 2):
        compilation.start_batch(range(8))
        compilation.run(doubled, module, torch.randn(8, 2, 4, 4))
    assert len(compilation.compiled) == 1
    assert [compilation.num_rows(rows, 8) for rows in (5, 6, 7, 8)] == [5, 6, 8, 8]
