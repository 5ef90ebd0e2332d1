from __future__ import annotations

import pickle

import pytest
import torch

from unicon.layout import Rows
from unicon.pairs import Pair, Pairs


def test_one_to_one_names_images_then_conditions() -> None:
    pairs = Pairs.one_to_one(2, "depth", weight_to_condition=0.5)
    assert pairs.num_rows == 4
    assert pairs.pairs == (Pair(0, 2, "depth", 1.0, 0.5), Pair(1, 3, "depth", 1.0, 0.5))
    assert pairs.layout.condition_adapters == (None, None, "depth", "depth")


def test_repeat_shifts_every_copy() -> None:
    pairs = Pairs((Pair(0, 1, "depth"), Pair(0, 2, "pose", 0.6)), 3).repeat(2)
    assert pairs.num_rows == 6
    assert pairs.pairs[2:] == (Pair(3, 4, "depth"), Pair(3, 5, "pose", 0.6))
    assert [(segment.adapter, segment.rows) for segment in pairs.layout.segments] == [
        (None, slice(0, 1)), ("depth", slice(1, 2)), ("pose", slice(2, 3)),
        (None, slice(3, 4)), ("depth", slice(4, 5)), ("pose", slice(5, 6)),
    ]  # fmt: skip


def test_without_joint_keeps_the_condition_rows() -> None:
    pairs = Pairs.one_to_one(2, "depth").without_joint()
    assert pairs.layout.joint_groups == ()
    assert pairs.layout.condition_groups == (("depth", Rows((2, 3))),)


def test_joint_group_holds_what_is_joined() -> None:
    pairs = Pairs((Pair(0, 2, "depth", 0.0, 0.0), Pair(1, 3, "depth", 0.25, 1.0)), 4)
    (group,) = pairs.layout.joint_groups
    assert (group.image_rows, group.condition_rows) == (Rows((1,)), Rows((3,)))
    ones = torch.ones(1, 2, 3)
    assert torch.equal(group.weights_to_image.weigh(ones), 0.25 * ones)
    assert group.weights_to_condition.weigh(ones) is ones


@pytest.mark.parametrize("indices", [(1, 2), (2, 0), (1, 1)])
def test_rows_take_and_add(indices: tuple[int, ...]) -> None:
    batch = torch.arange(6.0).reshape(3, 2)
    rows = Rows(indices)
    assert torch.equal(rows.take(batch), batch[list(indices)])
    expected = batch.clone()
    for index in indices:
        expected[index] += 1
    ones = torch.ones(len(indices), 2)
    assert torch.equal(rows.add(batch, ones), expected)
    assert torch.equal(batch, torch.arange(6.0).reshape(3, 2))
    rows.add_(batch, ones)
    assert torch.equal(batch, expected)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([Pair(0, 4, "depth")], "condition_row"),
        ([Pair(-1, 1, "depth")], "image_row"),
        ([Pair(0, 1, "depth"), Pair(1, 2, "depth")], "rows \\[1\\] came as both"),
        ([Pair(0, 0, "depth")], "rows \\[0\\] came as both"),
        ([Pair(0, 2, "depth"), Pair(1, 2, "pose")], "belongs to one adapter"),
        ([Pair(0, 1, "depth"), Pair(0, 1, "depth", 0.5)], "given once"),
    ],
)
def test_wrong_pairs_are_refused(pairs: list[Pair], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pairs(tuple(pairs), 4)


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Pairs((), 0)


def test_pickle_leaves_cached_tensors_behind() -> None:
    pairs = Pairs.one_to_one(2, "depth", weight_to_image=0.5)
    pairs.layout.joint_groups[0].weights_to_image.weigh(torch.ones(2, 1, 1))
    copy = pickle.loads(pickle.dumps(pairs))
    assert copy == pairs and hash(copy) == hash(pairs)
    assert set(vars(copy)) == {"pairs", "num_rows"}
