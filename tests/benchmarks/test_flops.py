"""What an estimate costs in the shape of Stable Diffusion 1.5, in TFLOP; counts are the same on every machine."""

from __future__ import annotations

import pytest

from benchmarks.flops import counts


def test_costs_with_fused_projections() -> None:
    cost = counts("fused")
    for mode in ("two-way", "one-way"):
        assert cost[f"{mode}, 1 step, full decoder"] <= 5.7
        assert cost[f"{mode}, 1 step, AutoencoderTiny decoder"] <= 3.3
        assert cost[f"{mode}, 1 step, small decoder of maps"] <= 3.3
    assert cost["one-way, 20 steps, full decoder"] <= 26.7  # what is given also attends to what moves
    assert cost["one-way, 20 steps, small decoder of maps"] <= 25
    assert cost["the same over three two-way runs, full decoder"] <= 0.77
    assert cost["the same over three two-way runs, small decoder of maps"] <= 0.6


@pytest.mark.slow
def test_costs_with_separate_projections() -> None:
    cost = counts("separate")
    assert cost["one-way, 20 steps, full decoder"] <= 25
    assert cost["the same over three two-way runs, full decoder"] <= 0.76
