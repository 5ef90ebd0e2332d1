"""One-way joint attention: rows that only give are run once for all steps.

A static row is given, stays at one noise level, and gets nothing from joint attention (its weights are 0). So its
features are the same in every step: they are computed once, and moving rows join what was kept of them. In every
transformer block that is the key and value of the joint attention. An output projection that mixes both sides
("fused") also needs the attention of the static row to the moving row, and for that the query.

The results are those of running all rows in every step with the same weights, up to rounding.

Tested in tests/unicon/test_one_way.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unicon.adapters.config import Projection
from unicon.layout import QUERY_KEY_VALUE, Layout, OneWayGroup, Part, Role, Rows, Sources, Weights
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
    place = {row: at for at, row in enumerate(row for row in range(pairs.num_rows) if row not in static)}
    kept: dict[tuple[str, Role], list[tuple[int, int, float]]] = {}
    joint: dict[str, list[Pair]] = {}
    for pair in (pair for pair in pairs.pairs if pair.is_joined):
        source, moving, role, weight = _sides(pair, static)
        if source is None:
            joint.setdefault(pair.adapter, []).append(
                Pair(place[pair.image_row], place[pair.condition_row], pair.adapter, pair.weight_to_image,
                     pair.weight_to_condition)
            )  # fmt: skip
        else:
            kept.setdefault((pair.adapter, role), []).append((static[source], place[moving], weight))
    adapters = pairs.layout.condition_adapters
    adapter_of = {at: adapters[row] for row, at in static.items()}
    sources, groups = [], []
    for (adapter, role), entries in kept.items():
        parts, other = PARTS[projections[adapter]], "condition" if role == "image" else "image"
        sources_rows, rows, weights = zip(*entries, strict=True)
        sources.append(Sources(adapter, other, Rows(sources_rows), parts))
        groups.append(OneWayGroup(adapter, role, Rows(rows), Weights(weights), parts))
    return (
        Layout(tuple(adapter_of[at] for at in range(len(adapter_of))), sources=tuple(sources)),
        Layout(
            tuple(adapters[row] for row in place),
            tuple(joint_group(adapter, joined) for adapter, joined in joint.items()),
            one_way_groups=tuple(groups),
        ),
    )


def _sides(pair: Pair, static: Mapping[int, int]) -> tuple[int | None, int, Role, float]:
    """(static row or None, moving row, role of the moving row, weight to the moving row) of a joined pair."""
    if pair.image_row in static:
        source, moving, role, weights = pair.image_row, pair.condition_row, "condition", (
            pair.weight_to_condition, pair.weight_to_image)  # fmt: skip
    elif pair.condition_row in static:
        source, moving, role, weights = pair.condition_row, pair.image_row, "image", (
            pair.weight_to_image, pair.weight_to_condition)  # fmt: skip
    else:
        return None, pair.image_row, "image", pair.weight_to_image
    if weights[1] != 0:
        raise ValueError(
            f"A static row gets nothing from joint attention; {pair} has the weight {weights[1]:g} to row {source}. "
            "Give 0, or run all rows in every step."
        )
    return source, moving, role, weights[0]
