"""Exceptions of a model: is it the row, the model, or the process?"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.engine.attempts import BrokenProcessError
from pipelines.errors import SampleError
from pipelines.stages.microbatches import is_out_of_memory
from pipelines.texts import clipped

DEVICE = re.compile(r"(CUDA|HIP|cuDNN) error|device-side assert|CUBLAS_STATUS")
"""After such an error the process's device answers nothing any more."""


class RowFaults:
    """Computes micro-batches of one chunk; a row's own exception becomes its SampleError.

    A batch that raises is halved down to single rows. A row that raises alone is at fault only if the model still works
    afterwards: a later row came through, or one that did before does so again. Otherwise:

    * nothing ever came through: the model or its settings are wrong, and the first exception is raised (not for samples
      that are in errors/ already: they are told from the rest by an earlier run, and stay there)
    * what came through before does not any more, or the device has failed: BrokenProcessError

    Out of memory is raised at once: the caller tries smaller batches.
    """

    def __init__(
        self,
        compute: Callable[[list[int]], Sequence[Any]],
        proof_of: Callable[[int], Callable[[], Any]],
        proof: Callable[[], Any] | None = None,
    ) -> None:
        self.compute = compute
        self.proof_of = proof_of
        """Row -> a call that computes it again."""
        self.proof = proof
        """Computes a row that came through, of this chunk or an earlier one; None where there is none yet."""
        self._unexplained: Exception | None = None

    def __call__(self, batch: list[int]) -> Sequence[Any]:
        """The results of the rows, or a SampleError for a row that raises."""
        try:
            results = self.compute(batch)
        except Exception as error:
            return self._after(error, batch)
        self.proof = self.proof_of(batch[-1])
        self._unexplained = None
        return results

    def check(self) -> None:
        """See that the model still works, where a row has raised since. Raises BrokenProcessError."""
        if self._unexplained is None or self.proof is None:
            return
        try:
            self.proof()
        except Exception as error:
            raise BrokenProcessError(f"{told(error)}, for a sample that came through before") from error
        self._unexplained = None

    def settle(self, failed_before: bool = False) -> None:
        """The chunk is through. Raises BrokenProcessError, or the first exception if no row ever came through."""
        self.check()
        if self._unexplained is not None and not failed_before:
            raise self._unexplained

    def _after(self, error: Exception, batch: list[int]) -> Sequence[Any]:
        if is_out_of_memory(error) or isinstance(error, BrokenProcessError):
            raise error
        if type(error).__name__ == "AcceleratorError" or DEVICE.search(str(error)):
            raise BrokenProcessError(told(error)) from error
        if len(batch) > 1:
            middle = len(batch) // 2
            return [*self(batch[:middle]), *self(batch[middle:])]
        self._unexplained = self._unexplained or error
        return [SampleError("model", told(error))]


def told(error: Exception) -> str:
    """The exception's name and first line."""
    return f"{type(error).__name__}: {clipped((str(error).strip().splitlines() or [''])[0])}"
