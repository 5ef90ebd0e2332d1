"""The order of training: every row once an epoch, the same steps wherever training starts, batches of one size."""

from collections import Counter

import numpy as np
import pytest

from pipelines.training.order import WINDOW_BYTES, Order, batches_of_window


def order(groups: int = 40, rows: int = 100, batch_size: int = 16, size_bytes: int = 1, seed: int = 3) -> Order:
    return Order([rows] * groups, [size_bytes] * groups, batch_size, seed)


def test_an_epoch_visits_every_group_once_in_another_order_each_time() -> None:
    epochs = [[group for window in order().groups_of_windows(epoch) for group in window] for epoch in (0, 1)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(40))] * 2
    assert epochs[0] != epochs[1] != list(range(40))
    assert order(seed=4).groups_of_windows(0) != order().groups_of_windows(0)


def test_windows_hold_enough_rows_and_not_too_many_bytes() -> None:
    assert {len(window) for window in order().groups_of_windows(0)} == {11, 7}  # 1,024 rows, and what is left
    assert {len(window) for window in order(size_bytes=WINDOW_BYTES // 2).groups_of_windows(0)} == {2}
    assert {len(window) for window in order(size_bytes=2 * WINDOW_BYTES).groups_of_windows(0)} == {1}
    assert {len(window) for window in order(batch_size=100).groups_of_windows(0)} == {16, 8}


def test_steps_are_numbered_without_gaps_and_resuming_gives_the_same_windows() -> None:
    windows = list(order().windows(0, 600))
    assert [window.first_step for window in windows[1:]] == [each.first_step + each.steps for each in windows[:-1]]
    assert {window.epoch for window in windows} == {0, 1, 2}
    assert all(window.steps == -(-window.rows // 16) for window in windows)
    resumed = list(order().windows(301, 600))
    assert resumed == windows[-len(resumed) :]
    assert resumed[0].first_step <= 301 < resumed[0].first_step + resumed[0].steps
    assert windows[-1].first_step < 600 <= windows[-1].first_step + windows[-1].steps


@pytest.mark.parametrize("count", [1, 16, 1000])
def test_batches_have_one_size_and_use_every_row(count: int) -> None:
    shapes = [(64, 64), (96, 48), (48, 96), (80, 56)]
    sizes = [shapes[0] if at % 10 else shapes[at // 10 % 4] for at in range(count)]
    batches = batches_of_window(sizes, 16, np.random.default_rng(0))
    assert len(batches) == -(-count // 16) and {len(rows) for _, rows in batches} == {16}
    uses = Counter(row for _, rows in batches for row in rows)
    assert uses.keys() == set(range(count)) and max(uses.values()) <= max(2, -(-16 // count))
    same = [all(sizes[row] == size for row in rows) for size, rows in batches]
    assert sum(same) >= len(batches) - 4
    assert batches == batches_of_window(sizes, 16, np.random.default_rng(0))
    assert count < 100 or batches != batches_of_window(sizes, 16, np.random.default_rng(1))
