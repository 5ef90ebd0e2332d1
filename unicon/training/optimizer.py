# torch declares `step` with overloads for a closure.
# pyright: reportIncompatibleMethodOverride=false
"""One optimizer that trains matrices with Muon and everything else with AdamW.

Muon ("Muon: An optimizer for hidden layers in neural networks", K. Jordan 2024) replaces the momentum of a matrix by
the nearest orthogonal matrix. Convolution kernels (out, in, h, w) count as matrices (out, in h w).

`torch.optim.Muon` computes in bfloat16, one matrix after the other. On a CPU without bfloat16 instructions this took
6.1 s per step for the 6.7 M parameters of `mini`, four times the forward and backward pass of 64 images. Here the
iteration runs in float32 on Gram matrices, on all of one size at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c of Muon's odd polynomial. An iteration maps a singular value s to a s + b s^3 + c s^5."""


class MatrixOptimizer(torch.optim.Optimizer):
    """Muon on weight matrices and kernels, AdamW on embeddings, biases and norms.

    Group 0 holds the matrices, group 1 the rest. Their `lr` may be set before every step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, matrix_lr: float, lr: float) -> None:
        is_matrix = {name: p.ndim >= 2 and "embedding" not in name for name, p in parameters.items()}
        self._matrices = [p for name, p in parameters.items() if is_matrix[name]]
        rest = [p for name, p in parameters.items() if not is_matrix[name]]
        groups = [{"params": self._matrices, "lr": matrix_lr}, {"params": rest, "lr": lr}]
        super().__init__([group for group in groups if group["params"]], {})
        self._momenta = [torch.zeros_like(p.detach().flatten(1)) for p in self._matrices]
        fused = bool(rest) and rest[0].device.type == "cuda"
        self._adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=fused) if rest else None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take one step with both. Parameters without gradient do not change."""
        if self._matrices:
            self._step_matrices(self.param_groups[0]["lr"])
        if self._adamw is not None:
            self._adamw.param_groups[0]["lr"] = self.param_groups[-1]["lr"]
            self._adamw.step()

    def _step_matrices(self, lr: float) -> None:
        moving = [(p, m) for p, m in zip(self._matrices, self._momenta, strict=True) if p.grad is not None]
        if not moving:
            return
        gradients = [p.grad.flatten(1).float() for p, _ in moving if p.grad is not None]
        momenta = [momentum for _, momentum in moving]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        updates = orthogonalized(torch._foreach_lerp(gradients, momenta, MOMENTUM))  # Nesterov
        torch._foreach_mul_(updates, [-lr * max(1.0, u.shape[0] / u.shape[1]) ** 0.5 for u in updates])
        torch._foreach_add_(
            [p for p, _ in moving], [u.view(p.shape) for (p, _), u in zip(moving, updates, strict=True)]
        )

    def state_dict(self) -> dict[str, Any]:
        """The states of both, for `load_state_dict`."""
        return {"momenta": self._momenta, "adamw": self._adamw.state_dict() if self._adamw else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the states that `state_dict` returned."""
        for momentum, saved in zip(self._momenta, state_dict["momenta"], strict=True):
            momentum.copy_(saved)
        if self._adamw is not None:
            self._adamw.load_state_dict(state_dict["adamw"])


def orthogonalized(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Bring the singular values of matrices (r, c) of any sizes close to 1 (0.7 to 1.2), as Muon does.

    A product of polynomials in X X^T is applied to X once at the end, so that the iteration itself costs r x r
    products, batched over all matrices with the same smaller side. All else is batched over matrices of one size.
    """
    places_by_size: dict[tuple[int, int], list[int]] = {}
    for place, matrix in enumerate(matrices):
        places_by_size.setdefault((matrix.shape[0], matrix.shape[1]), []).append(place)
    stacks = {size: torch.stack([matrices[place] for place in places]) for size, places in places_by_size.items()}
    found: list[Tensor] = [torch.empty(0)] * len(matrices)
    for side in {min(size) for size in stacks}:
        wide = {size: _wide_units(stack) for size, stack in stacks.items() if min(size) == side}
        factors = _left_factors(torch.cat([stack @ stack.mT for stack in wide.values()]))
        for (size, stack), part in zip(wide.items(), factors.split([len(x) for x in wide.values()]), strict=True):
            results = part @ stack
            results = results if size[0] <= size[1] else results.mT.contiguous()
            for place, result in zip(places_by_size[size], results.unbind(), strict=True):
                found[place] = result
    return found


def _wide_units(stack: Tensor) -> Tensor:
    """Scale matrices (n, r, c) to norm 1, and transpose those with more rows than columns."""
    stack = stack / stack.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    return stack if stack.shape[1] <= stack.shape[2] else stack.mT


def _left_factors(gram: Tensor) -> Tensor:
    """From Gram matrices X X^T (n, r, r), compute Q (n, r, r) such that Q X is the result of the iteration on X."""
    a, b, c = COEFFICIENTS
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    total = identity.expand_as(gram)
    for iteration in range(ITERATIONS):
        polynomial = torch.baddbmm(a * identity, gram, b * identity + c * gram)
        total = polynomial @ total
        if iteration + 1 < ITERATIONS:
            gram = polynomial @ gram @ polynomial
    return total
