"""Muon for matrices, AdamW for everything else, behind one optimiser.

Muon ("Muon: An optimizer for hidden layers in neural networks", K. Jordan 2024; torch.optim.Muon) replaces a matrix's
momentum by the nearest orthogonal matrix. Kernels of convolutions (out, in, h, w) count as matrices (out, in h w).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class MatrixOptimizer(torch.optim.Optimizer):
    """torch's Muon on weight matrices and kernels, AdamW on embeddings, biases and norms.

    Group 0 holds the matrices, group 1 the rest; their ``lr`` may be set before every step.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, matrix_lr: float, lr: float) -> None:
        is_matrix = {name: p.ndim >= 2 and "embedding" not in name for name, p in parameters.items()}
        matrices = [p for name, p in parameters.items() if is_matrix[name]]
        rest = [p for name, p in parameters.items() if not is_matrix[name]]
        groups = [{"params": matrices, "lr": matrix_lr}, {"params": rest, "lr": lr}]
        super().__init__([group for group in groups if group["params"]], {})
        self._views = [(p, nn.Parameter(p.detach().flatten(1))) for p in matrices]
        views = [view for _, view in self._views]
        self._inner: list[torch.optim.Optimizer] = []
        if views:
            self._inner.append(torch.optim.Muon(views, lr=matrix_lr, weight_decay=0.0, adjust_lr_fn="original"))
        if rest:
            self._inner.append(torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.0))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of both; a parameter without gradient stays as it is."""
        for parameter, view in self._views:
            view.data = parameter.data.flatten(1)
            view.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        for group, inner in zip(self.param_groups, self._inner, strict=True):
            inner.param_groups[0]["lr"] = group["lr"]
            inner.step()
        for parameter, view in self._views:
            if view.data_ptr() != parameter.data_ptr():  # a kernel in channels_last has no view as a matrix
                parameter.copy_(view.reshape(parameter.shape))

    def state_dict(self) -> dict[str, Any]:
        """States of both, for ``load_state_dict``."""
        return {"inner": [inner.state_dict() for inner in self._inner]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for inner, state in zip(self._inner, state_dict["inner"], strict=True):
            inner.load_state_dict(state)
