# torch declares `Module.cuda` in a way that hides `self`.
# pyright: reportCallIssue=false
"""CUDA graphs and compiled code on a GPU. Run with `./dev test -m gpu`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.compiling import smallest_unet
from unicon.compilation.compiled import TIMED_CALLS, Compilation
from unicon.compilation.cuda_graph import CudaGraph
from unicon.compilation.policy import LAUNCH_BOUND_ROWS, CompileSettings
from unicon.layout import Layout
from unicon.pairs import Pairs
from unicon.unet_call import run_unet

pytestmark = pytest.mark.gpu


def inputs(layout: Layout, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = layout.num_rows
    latents, text = (torch.randn(shape, generator=generator) for shape in ((rows, 4, 8, 8), (rows, 5, 24)))
    return latents.cuda(), torch.full((rows,), 500.0).cuda(), text.cuda()


@torch.no_grad()
def test_results_of_a_graph_are_not_changed_by_later_calls() -> None:
    pool = torch.cuda.graph_pool_handle()
    first = CudaGraph(lambda x: (x * 2, x + 1), [torch.zeros(4, device="cuda")], pool)
    second = CudaGraph(lambda x: (x @ x,), [torch.zeros(64, 64, device="cuda")], pool)
    kept = first(torch.ones(4, device="cuda"))
    second(torch.ones(64, 64, device="cuda"))
    first(torch.full((4,), 5.0, device="cuda"))
    assert [tensor.tolist() for tensor in kept] == [[2.0] * 4, [2.0] * 4]


@pytest.mark.parametrize("mode", ["auto", "always"])
@pytest.mark.parametrize("pairs", [1, LAUNCH_BOUND_ROWS])
@torch.no_grad()
def test_calls_of_every_number_of_rows_give_the_same_result(mode: str, pairs: int) -> None:
    unet = smallest_unet().cuda()
    layout = Pairs.one_to_one(pairs, "depth").layout
    expected = [run_unet(unet, layout, *inputs(layout, seed))[0] for seed in range(4)]
    settings = CompileSettings(mode=mode, rows_expected=10)  # type: ignore[arg-type]
    compilation = Compilation(settings, "cuda")
    found = [compilation.run_unet(unet, layout, *inputs(layout, seed))[0] for seed in range(4)]
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) <= 1e-3
    assert compilation.failure == ""
    said = compilation.describe()
    assert (said["compiled"], said["captured"]) == ((1, 0) if mode == "always" else (0, int(pairs == 1)))


@torch.no_grad()
def test_graphs_survive_that_weights_are_stored_anew() -> None:
    unet = smallest_unet().cuda()
    small, large = (Pairs.one_to_one(pairs, "depth").layout for pairs in (1, LAUNCH_BOUND_ROWS))
    expected = run_unet(unet, small, *inputs(small, 0))[0]
    compilation = Compilation(CompileSettings(mode="auto", rows_expected=10**15), "cuda")
    for _ in range(2):
        compilation.run_unet(unet, small, *inputs(small, 0))
    assert compilation.describe()["captured"] == 1
    compilation.start_batch(range(LAUNCH_BOUND_ROWS))
    for _ in range(TIMED_CALLS + 2):
        compilation.run_unet(unet, large, *inputs(large, 0))
    assert compilation.describe()["compiled"] == 1
    again = compilation.run_unet(unet, small, *inputs(small, 0))[0]
    assert float((again - expected).norm() / expected.norm()) <= 1e-3
    assert compilation.failure == ""
