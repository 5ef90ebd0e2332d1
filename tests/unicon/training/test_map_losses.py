"""The losses of maps rank estimates as the metrics do."""

from __future__ import annotations

import pytest
import torch

from unicon.training.map_losses import affine_loss, align, drawing_loss, line_loss


def _depth() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand((2, 1, 8, 8), generator=generator)


def test_scale_and_shift_of_depth_do_not_matter() -> None:
    truth = _depth()
    moved = truth * torch.tensor([0.5, 2.0])[:, None, None, None] - torch.tensor([0.2, -3.0])[:, None, None, None]
    assert affine_loss(moved, truth) < 5e-3
    assert affine_loss(truth.flip(-1), truth) > 0.2
    assert torch.allclose(align(moved, truth).mean((1, 2, 3)), truth.mean((1, 2, 3)), atol=1e-5)


def test_far_errors_count_more_as_errors_of_depth_do() -> None:
    truth = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(4, 1)[None, None]
    far, near = truth.clone(), truth.clone()
    far[..., :2] += 0.2 * torch.tensor([1, -1])
    near[..., 2:] += 0.2 * torch.tensor([1, -1])
    assert affine_loss(far, truth) > 2 * affine_loss(near, truth)


def test_a_constant_estimate_of_depth_has_a_finite_gradient() -> None:
    estimate = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
    affine_loss(estimate, _depth()[:1]).backward()
    assert estimate.grad is not None and estimate.grad.isfinite().all()


def _line(column: int, brightness: float = 1.0) -> torch.Tensor:
    lines = torch.zeros(1, 1, 16, 16)
    lines[..., column] = brightness
    return lines


def test_a_line_next_to_its_place_is_better_than_none_and_a_faint_one_too() -> None:
    truth, none = _line(8), torch.zeros(1, 1, 16, 16)
    exact, near, far, faint = (line_loss(line, truth) for line in (truth, _line(9), _line(12), _line(8, 0.3)))
    assert exact == pytest.approx(0, abs=1e-5)
    assert exact < near < line_loss(none, truth)
    assert near < far and faint < line_loss(none, truth)


def test_a_drawing_does_not_vanish() -> None:
    """A limb that is there in one of four cases is drawn: plain L1 would prefer black."""
    black, limb = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    limb[:, 0, 4:6] = 1
    truths = torch.cat([limb, black, black, black])
    drawn, absent = (drawing_loss(each.expand(4, -1, -1, -1), truths) for each in (limb, black))
    assert drawn < absent
    assert (limb.expand(4, -1, -1, -1) - truths).abs().mean() > truths.abs().mean()
