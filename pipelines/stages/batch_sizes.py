"""How many rows the model processes at once: a fixed number, or one that is found by trying.

The number changes no result beyond rounding, see `unicon.model`.
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.storage.file_info import short_hash
from unicon.files.hashes import cache_folder

CPU = "cpu"
FIRST_SIZE = 8
"""The batch size of CPUs, which gain nothing from larger batches, and the first one that is tried elsewhere."""
MAX_SIZE = 64
MIN_GAIN = 1.03
"""A batch of twice the size is worth its memory if it processes this many times as many rows a second."""
TRIALS = 3
"""Batches by which a size is judged, by the fastest one: the first one may include compiling or tuning."""


@dataclass(kw_only=True)
class Growth:
    """The search for the batch size of one shape: it doubles while rows per second grow and memory suffices."""

    size: int
    """The number of rows to use now."""
    most: int
    best: int = 0
    """The largest size that was worth its memory; 0: none has been judged."""
    rate: float = 0.0
    """Rows per second at `best`."""
    seconds: list[float] = field(default_factory=list)
    """Times of the batches of the current size."""

    @property
    def has_ended(self) -> bool:
        """Whether the size will only change if memory is short."""
        return self.best == self.size

    def took(self, rows: int, seconds: float) -> None:
        """Note the time of a batch; batches of other sizes, such as the last one of a chunk, are ignored."""
        if self.has_ended or rows != self.size:
            return
        self.seconds.append(seconds)
        if len(self.seconds) < TRIALS:
            return
        rate = rows / max(min(self.seconds), 1e-9)
        self.seconds = []
        if rate < MIN_GAIN * self.rate:
            self.size = self.best
            return
        self.best, self.rate = rows, rate
        self.size = min(2 * rows, self.most)

    def did_not_fit(self, rows: int) -> None:
        """Note that memory was short for a batch; half of it is used from now on."""
        if rows <= self.size:
            self.size = self.best = max(1, rows // 2)


class BatchSizes:
    """The batch sizes of an actor by area in pixels. Several threads may use it."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._fits: dict[int, int] = {}
        """Area -> rows, where memory was short for more."""
        self._lock = threading.Lock()

    def limit(self, area_px: int) -> int:
        """The number of rows to try at once: at most what fits at this area or a smaller one."""
        with self._lock:
            return min([self._wanted(area_px), *(rows for area, rows in self._fits.items() if area <= area_px)])

    def took(self, area_px: int, rows: int, seconds: float) -> None:
        """Note the time of a batch on the device."""

    def did_not_fit(self, area_px: int, rows: int) -> None:
        """Note that memory was short for a batch of several rows."""
        with self._lock:
            self._fits[area_px] = min(rows // 2, self._fits.get(area_px, rows))

    def _wanted(self, area_px: int) -> int:
        return self.batch_size


class GrowingBatchSizes(BatchSizes):
    """Batch sizes that are found by trying and remembered for the next run."""

    def __init__(self, remembered: "RememberedSizes", key: Callable[[int], str]) -> None:
        super().__init__(MAX_SIZE)
        self._remembered = remembered
        self._key = key
        """Area -> what the size depends on."""
        self._growths: dict[int, Growth] = {}

    def took(self, area_px: int, rows: int, seconds: float) -> None:
        """Note the time of a batch on the device."""
        with self._lock:
            growth = self._growth(area_px)
            if not growth.has_ended:
                growth.took(rows, seconds)
                self._remember(area_px, growth)

    def did_not_fit(self, area_px: int, rows: int) -> None:
        """Note that memory was short for a batch of several rows."""
        super().did_not_fit(area_px, rows)
        with self._lock:
            growth = self._growth(area_px)
            growth.did_not_fit(rows)
            self._remember(area_px, growth)

    def _remember(self, area_px: int, growth: Growth) -> None:
        if growth.has_ended:
            self._remembered.write(self._key(area_px), growth.size)

    def _wanted(self, area_px: int) -> int:
        return self._growth(area_px).size

    def _growth(self, area_px: int) -> Growth:
        if area_px not in self._growths:
            size = self._remembered.read(self._key(area_px))
            self._growths[area_px] = Growth(size=size or FIRST_SIZE, most=MAX_SIZE, best=size or 0)
        return self._growths[area_px]


def found_sizes(model: Any, task: Any) -> BatchSizes:
    """Return sizes for a loaded model: FIRST_SIZE on a CPU, found by trying on other devices."""
    device = getattr(model, "device_name", CPU)
    if device == CPU:
        return BatchSizes(FIRST_SIZE)
    remembered = RememberedSizes(cache_folder() / "batch_sizes.json")
    known = f"{device}, {model.dtype}, weights {model.weights_sha256[:16]}, task {short_hash(repr(task))}"
    return GrowingBatchSizes(remembered, lambda area_px: f"{known}, {area_px} pixels")


@dataclass(frozen=True)
class RememberedSizes:
    """Batch sizes in a file that all processes of a machine share. Without access to it, nothing is remembered."""

    path: Path

    def read(self, key: str) -> int | None:
        """Return the size for a key, or None if there is none."""
        size = self._all().get(key)
        return size if isinstance(size, int) and 1 <= size <= MAX_SIZE else None

    def write(self, key: str, size: int) -> None:
        """Remember a size. If two processes write at the same time, one of the sizes is found again later."""
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent)
            with os.fdopen(handle, "w") as file:
                json.dump({**self._all(), key: size}, file)
            os.replace(name, self.path)

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
