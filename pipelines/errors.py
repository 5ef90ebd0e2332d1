"""The two ways things go wrong: a bad setting stops the job before it starts, a bad sample becomes a row.

A third kind, a storage or machine failure, is nobody's fault here: it stays an ordinary exception, fails its chunk, and
the same command does that chunk again. Which kind the death of a process is, `attempts.py` finds out; which kind an
exception of a model, `row_faults.py`.
"""


class SettingError(ValueError):
    """A setting the job cannot run with. The message states the rule, what came, and the likely cure."""


class SampleError(ValueError):
    """One sample that cannot be processed: it becomes a row of `errors/` and the job goes on."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.stage, self.reason)


class ShardChangedError(OSError):
    """A file is another one than was planned: its chunk fails, and the same command does it again."""


class FlowError(RuntimeError):
    """The run stopped for a reason that is no sample's fault; what is published stays, the same command goes on."""
