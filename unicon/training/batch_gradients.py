"""The gradients of a step from batches that several workers share, and the rows that make them infinite.

Every worker adds up the gradients of its rows. The sums are added over the workers and divided by the weight of the
global batch, so that they do not depend on the number of workers (see `unicon.training.workers`).

Tested in tests/unicon/training/test_batch_gradients.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from unicon.training.batch_loss import WeightedSum
from unicon.training.batches import BatchSource, PairBatch
from unicon.training.fit import autocast
from unicon.training.recipe import AdapterRecipe
from unicon.training.trainer import NonFiniteLossError
from unicon.training.workers import Workers

RowsLoss = Callable[[PairBatch, Sequence[int], int], dict[str, WeightedSum]]
"""The losses of rows at places of the global batch in a step, see `BatchLoss`."""


class BatchGradients:
    """The gradients of the steps of a recipe; see `StepGradients`."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        loss: RowsLoss,
        source: BatchSource,
        recipe: AdapterRecipe,
        workers: Workers,
    ) -> None:
        """Prepare the gradients.

        Args:
            parameters: All parameters in training.
            loss: The losses of rows.
            source: The batches.
            recipe: The recipe.
            workers: The processes that train together.

        Raises:
            ValueError: There are more workers than rows in a batch.
        """
        self.parameters, self.loss, self.source = list(parameters.values()), loss, source
        self.recipe, self.workers = recipe, workers
        self.batch_size = recipe.sampling.batch_size
        self.part = workers.part(self.batch_size)
        self._batch: PairBatch | None = None

    def __call__(self, step: int, scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
        """See `StepGradients`."""
        batch = self._batch = self._next_batch(step)
        sums: dict[str, Tensor] = {}
        for rows in _parts(_counting(batch), self.recipe.gradient_accumulation):
            for name, part in self._backward(batch, rows, step, scaler).items():
                sums[name] = sums[name] + part if name in sums else part
        totals = torch.stack(list(sums.values())).float()
        self.workers.add([totals])
        found = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        self.workers.add(found)
        weights = totals[:, 1]
        scales = torch.where(weights > 0, 1 / weights, 0)  # a batch without any weight has no gradient
        torch._foreach_mul_(found, self.batch_size * scales[list(sums).index("loss")])
        return dict(zip(sums, totals[:, 0] * scales, strict=True))

    def failure(self, step: int) -> NonFiniteLossError:
        """See `StepGradients`. The rows of the step are tried one by one."""
        batch = self._batch
        assert batch is not None
        rows = _counting(batch)
        culprits = self.workers.gather([batch.keys[row] for row in rows if not self._is_finite(batch, row, step)])
        return NonFiniteLossError(
            step, culprits or self.workers.gather([batch.keys[row] for row in rows]), bool(culprits)
        )

    def _next_batch(self, step: int) -> PairBatch:
        batch = self.source.batch(step, self.workers.rank, self.workers.world_size)
        expected = self.part.stop - self.part.start
        if len(batch.keys) != expected:
            raise ValueError(
                f"Worker {self.workers.rank} of {self.workers.world_size} trains {expected} rows of a batch of "
                f"{self.batch_size}; got {len(batch.keys)} in step {step}. Correct the source."
            )
        return batch

    def _backward(
        self, batch: PairBatch, rows: Sequence[int], step: int, scaler: torch.amp.GradScaler
    ) -> dict[str, Tensor]:
        """Add the gradients of some rows, and return (sum, weight) of every loss as a tensor (2,)."""
        with autocast(self.recipe.fit, self.parameters[0].device):
            losses = self.loss(batch.select(rows), [self.part.start + row for row in rows], step)
        scaler.scale(losses["loss"].total / self.batch_size).backward()
        return {name: torch.stack([each.total.detach().float(), each.weight]) for name, each in losses.items()}

    def _is_finite(self, batch: PairBatch, row: int, step: int) -> bool:
        """Whether a row alone has a finite loss and gradient."""
        for parameter in self.parameters:
            parameter.grad = None
        unscaled = torch.amp.GradScaler(self.parameters[0].device.type, enabled=False)
        values = [*self._backward(batch, [row], step, unscaled).values()]
        values += [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return all(bool(value.isfinite().all()) for value in values)


def _counting(batch: PairBatch) -> list[int]:
    """The rows with a weight. All rows if none has one, so that every worker has the same gradients to add."""
    rows = [row for row, weight in enumerate(batch.weights.tolist()) if weight > 0]
    return rows or list(range(len(batch.keys)))


def _parts(rows: Sequence[int], count: int) -> list[Sequence[int]]:
    """Split rows into at most `count` parts of nearly equal length."""
    count = min(count, len(rows))
    return [rows[part * len(rows) // count : (part + 1) * len(rows) // count] for part in range(count)]
