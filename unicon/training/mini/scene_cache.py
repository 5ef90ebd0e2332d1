"""A cache of rendered scenes for training, kept on disk as plain arrays.

A cache is a folder of parts. Part p of a sequence holds the scenes from p * PART_SIZE on and is written atomically, so
that an interrupted rendering continues where it stopped.

Shapes: S scenes, H W pixels.

Tested in tests/unicon/training/mini/test_train.py.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from unicon.scenes import render
from unicon.scenes.layout import sample_scene

PART_SIZE = 250


@dataclass(frozen=True)
class SceneArrays:
    """Scenes in memory."""

    images: np.ndarray
    """(S, H, W, 3) uint8 sRGB."""
    inverse_depths: np.ndarray
    """(S, H, W) uint16: 0 = far, 65535 = near."""
    edges: np.ndarray
    """(S, H, W) bool."""
    poses: np.ndarray
    """(S, H, W, 3) uint8, drawn by `unicon.pose`; black where nobody is in view."""
    captions: tuple[str, ...]


def render_cache(
    root: Path,
    seed: int,
    count: int,
    size_px: tuple[int, int] = (128, 128),
    workers: int | None = None,
    view: int = 0,
) -> None:
    """Render the first `count` scenes of a seed into `root`. Existing parts are kept.

    Args:
        root: Folder of the cache, one for each seed, size and view.
        seed: The sequence of scenes, see `sample_scene`.
        count: Number of scenes, rounded up to whole parts.
        size_px: (width, height).
        workers: Number of processes. The default is the number of cores.
        view: View of every scene, see `sample_scene`.
    """
    root.mkdir(parents=True, exist_ok=True)
    missing = [part for part in range(-(-count // PART_SIZE)) if not _part_path(root, part).exists()]
    with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for part in pool.map(partial(_render_part, root, seed, size_px, view), missing):
            print(f"rendered part {part}", flush=True)


def load_cache(root: Path, count: int | None = None) -> SceneArrays:
    """Load the first `count` scenes of a cache, or all.

    Raises:
        FileNotFoundError: The cache holds fewer scenes than asked for.
    """
    parts = sorted(root.glob("part-*.npz"))
    wanted = len(parts) if count is None else -(-count // PART_SIZE)
    if len(parts) < max(wanted, 1):
        raise FileNotFoundError(
            f"a scene cache must hold {wanted} parts of {PART_SIZE} scenes; {root} holds {len(parts)}: render it first"
        )
    arrays = [np.load(path, allow_pickle=False) for path in parts[:wanted]]
    columns = {name: np.concatenate([part[name] for part in arrays])[:count] for name in arrays[0].files}
    captions = tuple(columns.pop("captions").tolist())
    return SceneArrays(captions=captions, **columns)


def _part_path(root: Path, part: int) -> Path:
    return root / f"part-{part:05d}.npz"


def _render_part(root: Path, seed: int, size_px: tuple[int, int], view: int, part: int) -> int:
    indices = range(part * PART_SIZE, (part + 1) * PART_SIZE)
    renderings = [render(sample_scene(seed, index, view), *size_px) for index in indices]
    columns = {
        "images": np.stack([rendering.image for rendering in renderings]),
        "inverse_depths": np.stack(
            [np.round(rendering.inverse_depth * 65535).astype(np.uint16) for rendering in renderings]
        ),
        "edges": np.stack([rendering.edges for rendering in renderings]),
        "poses": np.stack([rendering.pose for rendering in renderings]),
        "captions": np.array([rendering.caption for rendering in renderings]),
    }
    path = _part_path(root, part)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **columns)
    temporary.replace(path)
    return part
