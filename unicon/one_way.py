"""One-way joint attention: rows that only give are run once for all steps.

A static row is given, stays at one noise level, and gets nothing from joint attention (its weights are 0). So its
features are the same in every step: they are computed once, and moving rows join what was kept of them. In every
transformer block that is the key and value of the joint attention. An output projection that mixes both sides
("fused") also needs the attention of the static row to the moving row, and for that the query.

The results are those of running all rows in every step with the same weights, up to rounding.

Tested in tests/unicon/test_one_way.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from unicon.adapters.config import Projection
from unicon.layout import QUERY_KEY_VALUE, Layout, OneWayGroup, Part, Role, Rows, Sources
from unicon.pairs import Pair, Pairs, joint_group

PARTS: Mapping[Projection, tuple[Part, ...]] = {"separate": ("key", "value"), "fused": QUERY_KEY_VALUE}
"""What is kept of a static row for each kind of output projection."""


@dataclass(frozen=True, kw_only=True)
class StaticRows:
    """The static rows of a batch."""

    rows: Rows
    """Which rows of the batch they are."""
    moving: Rows
    """The other rows."""
    latents: Tensor
    """(len(rows), channels, h, w)."""
    timesteps: Tensor
    """(len(rows),)."""
    projections: Mapping[str, Projection]
    """The output projection of every adapter."""
    ignores_negative: bool = False
    """Whether the negative prompt of every static row equals its prompt."""


def split(
    pairs: Pairs, static: Mapping[int, int], projections: Mapping[str, Projection]
) -> tuple[Layout, Layout]:  # fmt: skip
    """Split a batch into the layouts of its static and its moving rows.

    Args:
        pairs: The pairs of all rows.
        static: Static row -> its place in the batch of static rows. Equal rows may share a place.
        projections: The output projection of every adapter.

    Raises:
        ValueError: A pair has a weight to a static row that is not 0.
    """
    moving = [row for row in range(pairs.num_rows) if row not in static]
    place = {**{row: at for at, row in enumerate(moving)}, **static}
    joint: dict[str, list[Pair]] = {}
    one_way: dict[tuple[str, Role], list[Pair]] = {}
    for pair in (pair for pair in pairs.pairs if pair.is_joined):
        role = _moving_side(pair, static)
        placed = replace(pair, image_row=place[pair.image_row], condition_row=place[pair.condition_row])
        if role is None:
            joint.setdefault(pair.adapter, []).append(placed)
        else:
            one_way.setdefault((pair.adapter, role), []).append(placed)
    adapters = pairs.layout.condition_adapters
    adapter_of = {at: adapters[row] for row, at in static.items()}
    groups = [_one_way_group(joined, role, PARTS[projections[name]]) for (name, role), joined in one_way.items()]
    return (
        Layout(tuple(adapter_of[at] for at in range(len(adapter_of))), sources=tuple(source for source, _ in groups)),
        Layout(
            tuple(adapters[row] for row in moving),
            tuple(joint_group(adapter, joined) for adapter, joined in joint.items()),
            one_way_groups=tuple(group for _, group in groups),
        ),
    )


def _moving_side(pair: Pair, static: Mapping[int, int]) -> Role | None:
    """The role of the moving row of a joined pair, or None if both rows move."""
    image_is_static = pair.image_row in static
    if not image_is_static and pair.condition_row not in static:
        return None
    weight = pair.weight_to_image if image_is_static else pair.weight_to_condition
    if weight != 0:
        raise ValueError(
            f"A static row gets nothing from joint attention; {pair} has the weight {weight:g} to it. Give 0, or run "
            "all rows in every step."
        )
    return "condition" if image_is_static else "image"


def _one_way_group(pairs: Sequence[Pair], role: Role, parts: tuple[Part, ...]) -> tuple[Sources, OneWayGroup]:
    """What is kept for pairs of one adapter whose rows of a role move, and the group that uses it."""
    group = joint_group(pairs[0].adapter, pairs)
    moving, static, weights = group.condition_rows, group.image_rows, group.weights_to_condition
    if role == "image":
        moving, static, weights = group.image_rows, group.condition_rows, group.weights_to_image
    return Sources(group.adapter, static, parts), OneWayGroup(group.adapter, role, moving, weights, parts)
