"""When compiling pays, and the numbers of rows that are compiled. Pure values, without torch.

Compiling a UNet takes a minute or more and makes its calls faster by a third, so it pays only where much work is left.
Measured on an H200 with 16 rows of Stable Diffusion 1.5 in float16: 94 s of compiling, 47.5 ms a call instead of 60.1.

Tested in tests/unicon/compilation/test_policy.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

CompileMode = Literal["never", "auto", "always"]
COMPILE_MODES: tuple[CompileMode, ...] = get_args(CompileMode)

EXPECTED_COMPILE_S = 100.0
"""Seconds that compiling a shape takes, before one has been compiled."""
CACHED_SHARE = 0.2
"""Share of these seconds where the code of the shape is in the cache."""
EXPECTED_GAIN = 1.25
"""Factor by which compiled calls are faster."""
LAUNCH_BOUND_ROWS = 8
"""Up to this number of rows, a call of the UNet takes as long as launching its kernels, so it becomes a CUDA graph.

Measured on an H200 with 2 rows of Stable Diffusion 1.5: 14.2 ms instead of 36 to 68, without compiling.
"""
MOST_PADDING = 1.25
"""In mode "auto", a batch is padded to a compiled number of rows if that has at most this many times as many."""


class SharedFiles(Protocol):
    """A store that several machines share, for the files of the compile cache."""

    def fetch(self, path: Path) -> None:
        """Copy the file of the path's name from the store to the path, if the store has it."""
        ...

    def publish(self, path: Path) -> None:
        """Copy the file at the path to the store."""
        ...


@dataclass(frozen=True, kw_only=True)
class CompileSettings:
    """Whether and when the calls of a model are compiled."""

    mode: CompileMode = "never"
    """"never"; "always": every call, at its first use; "auto": on a CUDA device, where it pays, else never.

    In mode "auto", calls of few rows become CUDA graphs at their second use.
    """
    rows_expected: int | None = None
    """The number of rows of micro-batches that this process will compute. None: unknown."""
    shared: SharedFiles | None = None
    """Where the compiled code is shared with other machines. It is executed: name only a place that you trust."""

    def __post_init__(self) -> None:
        if self.mode not in COMPILE_MODES:
            raise ValueError(f"compile is one of {', '.join(COMPILE_MODES)}; got {self.mode!r}. Give one of these.")

    def is_on(self, device_type: str) -> bool:
        """Whether anything may be compiled on this type of device."""
        return self.mode == "always" or (self.mode == "auto" and device_type == "cuda")

    def calls_left(self, calls: int, rows: int) -> float:
        """The expected number of further calls of a shape that was called `calls` times in the first `rows` rows.

        Without a known number of rows, as much work is expected as has been done: then compiling costs at most about
        as much as running on without it.
        """
        if self.rows_expected is None or rows == 0:
            return float(calls)
        return calls * max(0, self.rows_expected - rows) / rows


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What compiling a shape would cost and save."""

    calls_left: float
    """Calls that are still to come."""
    call_s: float
    """Seconds of an uncompiled call."""
    gain: float
    """Factor by which a compiled call is faster."""
    compile_s: float
    """Seconds of compiling."""

    @property
    def saving_s(self) -> float:
        """Seconds that compiled calls save."""
        return self.calls_left * self.call_s * (1.0 - 1.0 / self.gain)

    @property
    def pays(self) -> bool:
        """Whether compiling takes less time than it saves."""
        return self.saving_s > self.compile_s


def compiled_rows(rows: int, most: int | None = None) -> int:
    """The number of rows that is compiled for a batch of `rows`: the next power of two, or `most` if that is less.

    Args:
        rows: Rows of the batch.
        most: The largest number of rows of a batch, which is compiled although it may be no power of two.
    """
    power = 1 << max(0, rows - 1).bit_length()
    return power if most is None or rows > most else min(power, most)
