"""The two ways things go wrong: a bad setting stops the job before it starts, a bad sample becomes a row.

A third kind, a storage or machine failure, is nobody's fault here: it stays an ordinary exception, fails its chunk, and
the same command does that chunk again. Which kind the death of a process is, `attempts.py` finds out; which kind an
exception of a model, `row_faults.py`.
"""

from pipelines.texts import FOREIGN_CHARS, clipped

MAX_REASON_CHARS = 2 * FOREIGN_CHARS - 1
FETCH = "fetch"
"""The stage of samples that wait: see PassingError."""


class SettingError(ValueError):
    """A setting the job cannot run with. The message states the rule, what came, and the likely cure."""


class MisfitError(SettingError):
    """One input file whose columns or fields are not those that the settings need; others may have them.

    Where none of the input's files has them it is the setting that is wrong; else the file becomes a row of `errors/`.
    """


class SampleError(ValueError):
    """One sample that cannot be processed: it becomes a row of `errors/` and the job goes on.

    A reason is one line of at most MAX_REASON_CHARS printable letters, whatever the sample has brought into it.
    """

    def __init__(self, stage: str, reason: str) -> None:
        reason = clipped(reason, MAX_REASON_CHARS)
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.stage, self.reason)


class PassingError(SampleError):
    """A file that a sample names cannot be fetched for now: no answer, a time-out, an overloaded server.

    The sample is a row of `errors/` of the stage FETCH, and every later run tries it again.
    """

    def __init__(self, reason: str, is_shared: bool = False) -> None:
        super().__init__(FETCH, reason)
        self.is_shared = is_shared
        """Whether the place is the storage of all samples rather than a host that this one names."""

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:  # type: ignore[override]
        return type(self), (self.reason, self.is_shared)


class ShardChangedError(OSError):
    """A file is another one than was planned: its chunk fails, and the same command does it again."""


class FlowError(RuntimeError):
    """The run stopped for a reason that is no sample's fault; what is published stays, the same command goes on."""
