"""Every place of a batch belongs to one worker. Sums over processes are tested in test_distributed.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unicon.training.workers import BUFFER_BYTES, Workers, _buffers


@pytest.mark.parametrize(("count", "world_size"), [(16, 2), (7, 3), (3, 3), (5, 1)])
def test_parts_are_consecutive_and_nearly_equal(count: int, world_size: int) -> None:
    parts = [Workers(rank, world_size).part(count) for rank in range(world_size)]
    expected = [part.tolist() for part in np.array_split(np.arange(count), world_size)]
    assert [list(range(part.start, part.stop)) for part in parts] == expected


def test_wrong_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 workers and a batch of 3"):
        Workers(0, 4).part(3)
    with pytest.raises(ValueError, match="got 2 of 2"):
        Workers(2, 2)


def test_one_worker_alone() -> None:
    assert Workers.current() == Workers(0, 1) and Workers().is_first
    value = torch.ones(3)
    Workers().add([value])
    assert torch.equal(value, torch.ones(3)) and Workers().gather(["a"]) == ["a"]


def test_tensors_are_summed_in_buffers() -> None:
    tensors = [torch.empty(BUFFER_BYTES // 16) for _ in range(10)]
    assert [len(group) for group in _buffers(tensors)] == [4, 4, 2]
