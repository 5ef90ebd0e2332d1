"""Near duplicates among millions of signatures: copies that were compressed, scaled or cropped by up to 5 percent.

A crop of an image is not similar to the image coefficient by coefficient, but it is to the window of the image that it
shows. Therefore every image is compared with all windows of all others (`WINDOWS`), whose coefficients are a linear
function of those of the image. To find the candidates without comparing everything with everything, the signs of the
lowest frequencies are looked up in tables, each of which is indexed by some of the bits (locality-sensitive hashing,
Indyk and Motwani, https://doi.org/10.1145/276698.276876). Candidates count if their coefficients are correlated and
their mean colors are similar.

The result is a function of the signatures and their order alone. Time grows in proportion to the number of images: of a
table's entries with equal bits, only the first `MAX_ENTRIES` are looked at.

Shapes: N images, W windows, F frequencies along each axis, T tables, B images of a block.

Tested in tests/pipelines/quality/test_near_duplicates.py.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.quality.perceptual_hash import FREQUENCIES, GRID_PX, WHITENING, coefficients, mean_colors

MIN_CORRELATION = 0.85
"""Smallest correlation of the whitened coefficients of two near duplicates."""
MAX_COLOR_DIFFERENCE = 20
"""Largest difference of a channel of the mean colors of two near duplicates, in levels."""
MAX_DIFFERENT_BITS = 12
"""Candidates differ in at most as many of the HASH_BITS."""
HASH_BITS, TABLES, TABLE_BITS = 64, 16, 20
MAX_ENTRIES = 256
COMPARED = 128
"""Number of coefficients that are compared, the lowest frequencies first."""
BLOCK, CANDIDATES_AT_ONCE, PAIRS_AT_ONCE = 512, 2_000_000, 512
MAX_THREADS = 8

INTERVALS = (
    *((0.0, 1.0), (0.0125, 0.9875), (0.05, 0.95)),
    *((trimmed, trimmed + 0.95) for trimmed in (0.0, 0.0125, 0.025, 0.0375, 0.05)),
)
"""Parts of an axis, as fractions. The windows are all combinations of a part of the height and one of the width."""
WINDOWS = len(INTERVALS) ** 2


def _window_maps() -> np.ndarray:
    """Return matrices (parts, F, F) that turn the coefficients of an axis into those of each of its INTERVALS."""
    edges = np.arange(GRID_PX + 1) / GRID_PX

    def cosines(start: float, stop: float) -> np.ndarray:
        covered = np.clip(np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start), 0, None)
        centers = (np.clip((edges[1:] + edges[:-1]) / 2, start, stop) - start) / (stop - start)
        basis = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * centers) * covered / (stop - start)
        basis[1:] *= 2**0.5
        return basis

    whole = cosines(0.0, 1.0)
    return np.stack([cosines(*interval) @ whole.T * GRID_PX for interval in INTERVALS]).astype(np.float32)


_MAPS = _window_maps()
_ROW, _COLUMN = (axis.ravel() for axis in np.indices((FREQUENCIES, FREQUENCIES)))
_LOWEST = np.lexsort((_ROW, np.maximum(_ROW, _COLUMN), _ROW + _COLUMN))[1:]
"""Indices of the coefficients but the first, the lowest frequencies first."""


def _table_weights() -> np.ndarray:
    """Return (HASH_BITS, T): the value of each bit in the index of each table; tables use different random bits."""
    weights = np.zeros((HASH_BITS, TABLES), np.float32)
    for table in range(TABLES):
        chosen = np.random.default_rng(table).permutation(HASH_BITS)[:TABLE_BITS]
        weights[chosen, table] = 2.0 ** np.arange(TABLE_BITS)
    return weights


_WEIGHTS = _table_weights()


def near_pairs(signatures: np.ndarray) -> np.ndarray:
    """Find the pairs of near duplicates.

    Args:
        signatures: (N, SIGNATURE_BYTES) uint8 of `perceptual_hash.signature`.

    Returns:
        (P, 2) indices of near duplicates, the smaller one first, in ascending order.
    """
    search = _Search.of(signatures)
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:  # NumPy lets other threads work
        found = list(pool.map(search.pairs, range(0, len(signatures), BLOCK)))
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def duplicates(signatures: np.ndarray, is_published: np.ndarray) -> np.ndarray:
    """Decide which images are duplicates: those with a near duplicate that is kept and comes before them.

    Published images come first, then the others, both in their order here. So decisions stay the same when some of the
    kept images have been published.

    Args:
        signatures: (N, SIGNATURE_BYTES) uint8, in an order that does not depend on the run.
        is_published: (N,) bool: whether the image is in the output already and therefore kept.

    Returns:
        (N,) the index of the first kept near duplicate of each image, -1 for images that are kept.
    """
    order = np.argsort(~is_published, kind="stable")
    first, inverse = _distinct(signatures[order])
    earlier: dict[int, list[int]] = {}
    for one, other in order[first[near_pairs(signatures[order][first])]].tolist():
        earlier.setdefault(other, []).append(one)
    partner = np.full(len(signatures), -1, np.int64)
    for image in order[first].tolist():
        if not is_published[image]:
            partner[image] = min((each for each in earlier.get(image, ()) if partner[each] < 0), default=-1)
    original = np.empty(len(signatures), np.int64)
    original[order] = order[first][inverse]
    copies = (original != np.arange(len(signatures))) & ~is_published & coefficients_exist(signatures)
    partner[copies] = np.where(partner[original] < 0, original, partner[original])[copies]
    return partner


def coefficients_exist(signatures: np.ndarray) -> np.ndarray:
    """Return (N,) bool: whether an image has structure that can be compared."""
    return np.any(signatures[:, : FREQUENCIES**2] != 0, axis=1)


def _distinct(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the first of each group of equal signatures, ascending, and the group of each signature."""
    as_values = np.ascontiguousarray(signatures).view(f"V{signatures.shape[1]}").ravel()
    _, first, group = np.unique(as_values, return_index=True, return_inverse=True)
    ascending = np.argsort(first)
    place = np.empty_like(ascending)
    place[ascending] = np.arange(len(ascending))
    return first[ascending], place[group]


class _Table(NamedTuple):
    """The images by some bits of their hash."""

    starts: np.ndarray
    """(2**TABLE_BITS + 1,) place of the first entry with each value of the bits."""
    images: np.ndarray
    """(N,) indices of the images, ascending among equal bits."""
    hashes: np.ndarray
    """(N,) uint64 hashes of these images."""


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The tables of all images."""

    signatures: np.ndarray
    has_structure: np.ndarray
    tables: Sequence[_Table]

    @classmethod
    def of(cls, signatures: np.ndarray) -> "_Search":
        has_structure = coefficients_exist(signatures)
        images = np.flatnonzero(has_structure)
        hashes, keys = np.empty(len(images), np.uint64), np.empty((len(images), TABLES), np.int32)
        for start in range(0, len(images), BLOCK):
            part = slice(start, start + BLOCK)
            lowest = coefficients(signatures[images[part]]).reshape(-1, FREQUENCIES**2)[:, _LOWEST[:HASH_BITS]]
            hashes[part], keys[part] = _hashes_and_keys(lowest)
        return cls(
            signatures=signatures,
            has_structure=has_structure,
            tables=[_table(images, hashes, keys[:, table]) for table in range(TABLES)],
        )

    def pairs(self, start: int) -> np.ndarray:
        """Return (P, 2): images of a block whose windows are near duplicates of images, and these."""
        images = np.flatnonzero(self.has_structure[start : start + BLOCK]) + start
        if not len(images):
            return np.empty((0, 2), np.int64)
        hashes, keys = _hashes_and_keys(_windows(coefficients(self.signatures[images]), HASH_BITS))
        owners = np.repeat(images, WINDOWS)
        candidates = [
            np.stack(found, axis=1)
            for table in range(TABLES)
            for found in _lookup(self.tables[table], owners, hashes.ravel(), keys[..., table].ravel())
        ]
        return self._verified(np.unique(np.concatenate(candidates), axis=0))

    def _verified(self, pairs: np.ndarray) -> np.ndarray:
        """Return the pairs with similar colors of which a window of the first correlates with the second."""
        colors = mean_colors(self.signatures)[pairs].astype(np.int16)
        pairs = pairs[np.abs(colors[:, 0] - colors[:, 1]).max(-1, initial=0) <= MAX_COLOR_DIFFERENCE]
        kept = [pairs[:0]]
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            part = pairs[start : start + PAIRS_AT_ONCE]
            windows, whole = (coefficients(self.signatures[part[:, side]]) for side in (0, 1))
            ours = _direction(_windows(windows, COMPARED))
            theirs = _direction(whole.reshape(len(part), -1)[:, _LOWEST[:COMPARED]])
            kept.append(part[np.einsum("bwc,bc->bw", ours, theirs).max(1) >= MIN_CORRELATION])
        return np.concatenate(kept)


def _table(images: np.ndarray, hashes: np.ndarray, keys: np.ndarray) -> _Table:
    order = np.argsort(keys, kind="stable")
    counts = np.bincount(keys, minlength=2**TABLE_BITS)
    return _Table(np.concatenate([[0], counts.cumsum()]), images[order], hashes[order])


def _windows(whole: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` lowest coefficients (B, W, count) of the windows of images with coefficients (B, F, F)."""
    chosen = _LOWEST[:count]
    needed = int(max(_ROW[chosen].max(), _COLUMN[chosen].max())) + 1
    maps = _MAPS[:, :needed].reshape(-1, FREQUENCIES)
    both = np.matmul(np.matmul(maps, whole), maps.T)
    parts = np.arange(len(INTERVALS)) * needed
    rows = (parts[:, None, None] + _ROW[chosen]) * len(maps)
    places = (rows + parts[None, :, None] + _COLUMN[chosen]).reshape(WINDOWS, count)
    return np.take(both.reshape(len(whole), -1), places, axis=1)


def _hashes_and_keys(lowest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes (...) uint64 and indices into the tables (..., T) of coefficients (..., HASH_BITS)."""
    bits = lowest > 0
    hashes = np.ascontiguousarray(np.packbits(bits, axis=-1)).view(np.uint64)[..., 0]
    return hashes, (bits.astype(np.float32) @ _WEIGHTS).astype(np.int32)


def _lookup(
    table: _Table, owners: np.ndarray, hashes: np.ndarray, keys: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (images, similar images), for windows of images (owners) with these hashes and indices into the table."""
    starts = table.starts[keys]
    counts = np.minimum(table.starts[keys + 1] - starts, MAX_ENTRIES)
    ends = counts.cumsum()
    parts = np.searchsorted(ends, np.arange(CANDIDATES_AT_ONCE, int(ends[-1]) + CANDIDATES_AT_ONCE, CANDIDATES_AT_ONCE))
    for part in np.split(np.arange(len(keys)), parts + 1):
        total = int(counts[part].sum())
        window = np.repeat(part, counts[part])
        offsets = np.arange(total) - np.repeat(counts[part].cumsum() - counts[part], counts[part])
        entries = starts[window] + offsets
        near = np.bitwise_count(hashes[window] ^ table.hashes[entries]) <= MAX_DIFFERENT_BITS
        ours, theirs = owners[window[near]], table.images[entries[near]]
        yield ours[ours != theirs], theirs[ours != theirs]


def _direction(lowest: np.ndarray) -> np.ndarray:
    """Return whitened coefficients (..., COMPARED), scaled to length 1."""
    white = lowest * WHITENING.ravel()[_LOWEST[:COMPARED]]
    return white / np.linalg.norm(white, axis=-1, keepdims=True)
