"""The UNet is compiled as a whole, in all kinds of layouts, and equals the uncompiled one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.compiling import smallest_unet
from unicon.compilation.compiled import Compilation
from unicon.compilation.policy import CompileSettings
from unicon.layout import Layout
from unicon.one_way import split
from unicon.pairs import Pairs
from unicon.unet_call import run_unet


def inputs(layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(layout.num_rows)
    rows = layout.num_rows
    latents, text = (torch.randn(shape, generator=generator) for shape in ((rows, 4, 8, 8), (rows, 5, 24)))
    return latents, torch.full((rows,), 500.0), text


@torch.no_grad()
def check(backend: str) -> Compilation:
    """Run a two-way layout, and the two layouts of a one-way batch; return what ran them."""
    unet = smallest_unet()
    compilation = Compilation(CompileSettings(mode="always"), backend=backend)
    two_way = Pairs.one_to_one(2, "depth").layout
    for _ in range(2):
        (ours,), (theirs,) = (run(unet, two_way, *inputs(two_way)) for run in (compilation.run_unet, run_unet))
        assert float((ours - theirs).abs().max()) <= 1e-4
    pairs = Pairs.one_to_one(2, "depth", weight_to_image=0.0)
    static, moving = split(pairs, {0: 0, 1: 1}, {"depth": "fused"})
    kept, expected = (run(unet, static, *inputs(static)) for run in (compilation.run_unet, run_unet))
    assert len(kept) == len(expected) > 0
    assert max(float((a - b).abs().max()) for a, b in zip(kept, expected, strict=True)) <= 1e-4
    (ours,), (theirs,) = (
        run(unet, moving, *inputs(moving), *features)
        for run, features in ((compilation.run_unet, kept), (run_unet, expected))
    )
    assert float((ours - theirs).abs().max()) <= 1e-4
    assert compilation.failure == ""
    assert len(compilation.compiled) == 3
    return compilation


def test_every_layout_is_traced_as_a_whole() -> None:
    check("eager")


@pytest.mark.slow
def test_compiled_code_computes_the_same() -> None:
    check("inductor")
