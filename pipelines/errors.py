"""The kinds of errors, and text for messages: foreign text that is safe to print, lines on stderr.

A bad setting stops the job before it starts; a bad sample becomes a row of `errors/`.

Samples that a filter of the user removes are rows of `errors/` with the stage FILTER; they are no failures.

A third kind, a failure of storage or of a machine, stays an ordinary exception. It fails its chunk, and running the
same command again repeats the chunk. `engine/attempts.py` decides which kind the death of a process is, and
`stages/row_faults.py` which kind an exception of a model is.

Tested in tests/pipelines/readers/test_damage.py and tests/pipelines/runs/test_waiting.py.
"""

import sys

FOREIGN_CHARS = 200
"""Maximum number of characters of foreign text in a message."""
MAX_REASON_CHARS = 2 * FOREIGN_CHARS - 1
FETCH = "fetch"
"""The stage of samples that wait for a later run; see PassingError."""
FILTER = "filter"
"""The stage of samples that a filter has removed: they have not failed, and no run tries them again."""


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


def printable(text: str) -> str:
    r"""Make text encodable as UTF-8: undecodable bytes of file names are written as `\xff`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _is_file_name(text) else "replace").decode(
            "utf-8", "backslashreplace"
        )
    return text


def clipped(text: str, limit_chars: int = FOREIGN_CHARS) -> str:
    r"""Shorten foreign text for a message to one line of `limit_chars` characters, with controls as `\x1b`."""
    text = " ".join(printable(text[: 10 * limit_chars]).split())
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)
    return text if len(text) <= limit_chars else f"{text[: limit_chars - 3]}..."


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _is_file_name(text: str) -> bool:
    """Return whether all surrogates are those of Python's file names, rather than halves of JSON's pairs."""
    return all(not 0xD800 <= ord(letter) <= 0xDFFF or 0xDC80 <= ord(letter) <= 0xDCFF for letter in text)


def say(text: str) -> None:
    """Print one line for the user at the terminal."""
    print(text, file=sys.stderr, flush=True)
