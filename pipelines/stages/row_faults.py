"""Exceptions while rows are processed: is the row to blame, the model, or the process?"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.engine.attempts import BrokenProcessError
from pipelines.errors import SampleError, clipped
from pipelines.stages.microbatches import is_out_of_memory
from pipelines.storage.damage import is_damage, reason_of

DEVICE = re.compile(r"(CUDA|HIP|cuDNN) error|device-side assert|CUBLAS_STATUS")
"""After such an error the device no longer works for this process."""


class RowFaults:
    """Computes micro-batches of one chunk; an exception that a row causes becomes its SampleError.

    A batch that raises is halved down to single rows. A row that raises alone is to blame only if the model still works
    afterwards, that is, if a later row succeeds, or one that succeeded before does so again. Otherwise:

    * If no row ever succeeded, the model or its settings are wrong, and the first exception is raised. This does not
      apply to samples that are in errors/ already: an earlier run separated them from the others, and they stay there.
    * If a row that succeeded before no longer does, or the device has failed, BrokenProcessError is raised.

    An out-of-memory error is raised at once, and the caller tries smaller batches.
    """

    def __init__(
        self,
        compute: Callable[[list[int]], Sequence[Any]],
        probe_of: Callable[[int], Callable[[], Any]],
        probe: Callable[[], Any] | None = None,
    ) -> None:
        self.compute = compute
        self.probe_of = probe_of
        """Row -> a call that computes it again."""
        self.probe = probe
        """Computes a row that succeeded before, in this chunk or an earlier one; None if there is none yet."""
        self._unexplained: Exception | None = None

    def __call__(self, batch: list[int]) -> Sequence[Any]:
        """Return the results of the rows, with a SampleError for each row that raises."""
        try:
            results = self.compute(batch)
        except Exception as error:
            return self._after(error, batch)
        self.probe = self.probe_of(batch[-1])
        self._unexplained = None
        return results

    def check(self) -> None:
        """Check that the model still works, if a row has raised since the last success. Raises BrokenProcessError."""
        if self._unexplained is None or self.probe is None:
            return
        try:
            self.probe()
        except Exception as error:
            raise BrokenProcessError(f"{describe(error)}, for a sample that succeeded before") from error
        self._unexplained = None

    def finish(self, failed_before: bool = False) -> None:
        """End the chunk. Raises BrokenProcessError, or the first exception if no row ever succeeded."""
        self.check()
        if self._unexplained is not None and not failed_before:
            raise self._unexplained

    def _after(self, error: Exception, batch: list[int]) -> Sequence[Any]:
        if is_out_of_memory(error) or isinstance(error, BrokenProcessError):
            raise error
        if type(error).__name__ == "AcceleratorError" or DEVICE.search(str(error)):
            raise BrokenProcessError(describe(error)) from error
        if len(batch) > 1:
            middle = len(batch) // 2
            return [*self(batch[:middle]), *self(batch[middle:])]
        self._unexplained = self._unexplained or error
        return [SampleError("model", describe(error))]


def describe(error: Exception) -> str:
    """The name and the first line of an exception."""
    return f"{type(error).__name__}: {clipped((str(error).strip().splitlines() or [''])[0])}"


@contextmanager
def blaming_sample(stage: str) -> Iterator[None]:
    """Turn exceptions that the values of a sample cause in the body into a SampleError, but not storage failures."""
    try:
        yield
    except SampleError:
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        raise SampleError(stage, f"the sample cannot be used: {type(error).__name__}: {reason_of(error)}") from error
