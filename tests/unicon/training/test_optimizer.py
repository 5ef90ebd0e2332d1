"""Muon on all matrices at once takes the same steps as the published iteration."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unicon.training.optimizer import MatrixOptimizer, orthogonalized


def _newton_schulz(matrix: torch.Tensor) -> torch.Tensor:
    """Muon's iteration as it is written down, on a wide matrix."""
    matrix = matrix / matrix.norm()
    for _ in range(5):
        gram = matrix @ matrix.T
        matrix = 3.4445 * matrix + (-4.7750 * gram + 2.0315 * gram @ gram) @ matrix
    return matrix


def test_orthogonalized_is_muons_iteration_for_every_size_at_once() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(size) for size in ((4, 12), (4, 4), (12, 4), (6, 7), (1, 5))]
    for matrix, found in zip(matrices, orthogonalized(matrices), strict=True):
        tall = matrix.shape[0] > matrix.shape[1]
        expected = _newton_schulz(matrix.T).T if tall else _newton_schulz(matrix)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.4


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_trained_as_a_matrix(memory_format: torch.memory_format) -> None:
    """The same steps as torch's Muon on the kernel as a matrix, to the precision of its bfloat16."""
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=memory_format))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    start = matrix.detach().clone()
    ours = MatrixOptimizer({"kernel": kernel}, matrix_lr=0.1, lr=0.1)
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.0, adjust_lr_fn="original")
    for _ in range(3):
        gradient = torch.randn(4, 3, 2, 2)
        kernel.grad, matrix.grad = gradient.to(memory_format=memory_format), gradient.flatten(1)
        ours.step()
        theirs.step()
    moved = (matrix - start).norm()
    assert (kernel.flatten(1) - matrix).norm() < 0.03 * moved
