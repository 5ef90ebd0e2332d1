"""The kinds of errors: a bad setting stops the job before it starts; a bad sample becomes a row of `errors/`.

A third kind, a failure of storage or of a machine, stays an ordinary exception. It fails its chunk, and running the
same command again repeats the chunk. `engine/attempts.py` decides which kind the death of a process is, and
`stages/row_faults.py` which kind an exception of a model is.

Tested in tests/pipelines/readers/test_damage.py and tests/pipelines/runs/test_waiting.py.
"""

from pipelines.texts import FOREIGN_CHARS, clipped

MAX_REASON_CHARS = 2 * FOREIGN_CHARS - 1
FETCH = "fetch"
"""The stage of samples that wait for a later run; see PassingError."""


class SettingError(ValueError):
    """A setting with which the job cannot run. The message states the rule, the value, and the likely remedy."""


class MisfitError(SettingError):
    """An input file that lacks the columns or fields that the settings need, while other files may have them.

    If none of the input's files has them, the setting is wrong. Otherwise the file becomes a row of `errors/`.
    """


class SampleError(ValueError):
    """A sample that cannot be processed. It becomes a row of `errors/`, and the job continues.

    The reason is one line of at most MAX_REASON_CHARS printable characters, whatever the sample contains.
    """

    def __init__(self, stage: str, reason: str) -> None:
        reason = clipped(reason, MAX_REASON_CHARS)
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.stage, self.reason)


class PassingError(SampleError):
    """A file that a sample names cannot be fetched for now: no answer, a timeout, an overloaded server.

    The sample becomes a row of `errors/` with the stage FETCH, and every later run tries it again.
    """

    def __init__(self, reason: str, is_shared: bool = False) -> None:
        super().__init__(FETCH, reason)
        self.is_shared = is_shared
        """Whether the failing place is the storage of all samples rather than a host that this sample names."""

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:  # type: ignore[override]
        return type(self), (self.reason, self.is_shared)


class ShardChangedError(OSError):
    """A file is not the one that was planned. Its chunk fails, and running the same command again repeats it."""


class FlowError(RuntimeError):
    """The run stopped for a reason that is not a sample's fault. Published rows stay; the same command continues."""
