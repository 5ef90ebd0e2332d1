"""Checking the lists that callers of `UniCon` give, one entry per row.

Tested in tests/unicon/test_generation.py and tests/unicon/test_model.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from unicon.options import MAX_SEED, check_whole


def texts_of(texts: Sequence[str] | None, count: int) -> list[str]:
    """The prompts as a list; `count` empty ones for None. Raises ValueError for a single text."""
    if isinstance(texts, str):
        raise ValueError(f"Prompts are a list, one for each row; got the text {texts!r}. Give [{texts!r}].")
    return [""] * count if texts is None else list(texts)


def aligned(
    sizes: Sequence[tuple[int, int]], prompts: Sequence[str] | None, negative_prompts: Sequence[str] | None,
    seeds: int | Sequence[int],
) -> list[tuple[tuple[int, int], str, str, int]]:  # fmt: skip
    """(size, prompt, negative prompt, seed) of every row. Raises ValueError for lists of different lengths."""
    count = len(sizes)
    texts, negative_texts, row_seeds = (
        texts_of(prompts, count),
        texts_of(negative_prompts, count),
        seeds_of(seeds, count),
    )
    if {len(texts), len(negative_texts), len(row_seeds)} != {count}:
        raise ValueError(
            f"Every list has one entry for each row; got {count} images, {len(texts)} prompts, {len(negative_texts)} "
            f"negative prompts, {len(row_seeds)} seeds. Give lists of the same length."
        )
    return list(zip(sizes, texts, negative_texts, row_seeds, strict=True))


def seeds_of(seeds: int | Sequence[int], count: int) -> list[int]:
    """The seeds as a list; a single seed is repeated `count` times. Raises ValueError for seeds out of range."""
    listed = [seeds] * count if isinstance(seeds, int | np.integer) else list(seeds)
    for seed in set(listed):
        check_whole("seeds", seed, 0, MAX_SEED)
    return [int(seed) for seed in listed]


def maps_by_row(maps: Mapping[str, Sequence[np.ndarray]], count: int) -> list[dict[str, np.ndarray]]:
    """Turn maps by adapter into one dict of maps for each row. Raises ValueError for lists of another length."""
    for name, rows in maps.items():
        if len(rows) != count:
            raise ValueError(
                f"Every condition has one map for each row; {name!r} has {len(rows)} maps for {count} prompts. "
                "Give lists of the same length."
            )
    return [{name: rows[row] for name, rows in maps.items()} for row in range(count)]


def map_size(maps: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """(width, height) of the maps of a row. Raises ValueError where they differ."""
    height, width = next(iter(maps.values())).shape[:2]
    check_map_size(maps, (width, height))
    return width, height


def check_map_size(maps: Mapping[str, np.ndarray], size: tuple[int, int]) -> None:
    """Raise ValueError unless all maps of a row have this size (width, height)."""
    shapes = {name: values.shape for name, values in maps.items()}
    if any(shape[:2] != size[::-1] for shape in shapes.values()):
        raise ValueError(
            f"The maps of a row have one size, which is that of its image if it has one; expected width x height "
            f"{size[0]} x {size[1]}, got arrays {shapes}. Resize them (unicon.images.resize_map)."
        )


def check_masks(masks: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """The masks as float32. Raises ValueError unless they have these sizes (width, height) and values in [0, 1]."""
    checked = [np.asarray(mask, dtype=np.float32) for mask in masks]
    shapes = [mask.shape for mask in checked]
    if shapes != [size[::-1] for size in sizes] or not all(((mask >= 0) & (mask <= 1)).all() for mask in checked):
        raise ValueError(
            f"Every image has a mask (H, W) of its own size with values in [0, 1]; got masks {shapes} for images of "
            f"(width, height) {list(sizes)}. Resize the masks, or divide 8-bit ones by 255."
        )
    return checked
