"""The processes that train together: who has which rows, and sums over all of them.

A step's gradient is a sum over the rows of the global batch, divided by the sum of their weights. Every worker adds up
its own rows, the sums are added over the workers, and the quotient is taken afterwards. So the result does not depend
on the number of workers or on how rows are shared out, even unevenly. Only adapters are trained, a small part of the
model, so the sum is taken once a step over flat buffers instead of during the backward pass (as
`DistributedDataParallel` does, which would also have to be told which adapters a step leaves out).

The process group is set up by the caller, for example by Ray Train or torchrun.

Tested in tests/unicon/training/test_workers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

BUFFER_BYTES = 64 << 20
"""Tensors are summed in flat buffers of about this size."""


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    Raises:
        ValueError: The rank is none of the workers'.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"A rank lies in [0, world_size); got {self.rank} of {self.world_size}.")

    @classmethod
    def current(cls) -> Workers:
        """The workers of torch's process group; one worker if there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this worker is the one that writes and reports."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """The places of this worker in a global batch of `count` rows. The first workers have one more where needed.

        Raises:
            ValueError: There are more workers than rows.
        """
        if count < self.world_size:
            raise ValueError(
                f"Every worker needs a row of the batch; got {self.world_size} workers and a batch of {count}. Use "
                "fewer workers or a larger batch."
            )
        size, left = divmod(count, self.world_size)
        start = self.rank * size + min(self.rank, left)
        return slice(start, start + size + (self.rank < left))

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one data type and device by their sums over all workers."""
        if self.world_size == 1:
            return
        for group in _buffers(tensors):
            flat = torch.cat([tensor.flatten() for tensor in group])
            dist.all_reduce(flat)
            for tensor, total in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def gather(self, texts: Sequence[str]) -> list[str]:
        """The texts of all workers, by rank."""
        if self.world_size == 1:
            return list(texts)
        gathered: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(gathered, list(texts))
        return [text for each in gathered for text in each]


def _buffers(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """The tensors in groups of about `BUFFER_BYTES`."""
    groups: list[list[Tensor]] = []
    size_bytes = BUFFER_BYTES
    for tensor in tensors:
        if size_bytes >= BUFFER_BYTES:
            groups.append([])
            size_bytes = 0
        groups[-1].append(tensor)
        size_bytes += tensor.numel() * tensor.element_size()
    return groups
