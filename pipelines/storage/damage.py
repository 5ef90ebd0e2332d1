"""Distinguishing damaged content, which becomes error rows, from failing storage, which fails its chunk.

At damaged files, decoders raise nearly any exception (pyarrow: ArrowInvalid, OSError without a number, KeyError,
UnicodeDecodeError, MemoryError, ...). Therefore an exception means damage if all other causes are excluded.

Tested in tests/pipelines/readers/test_damage.py.
"""

from pipelines.errors import SettingError, ShardChangedError, clipped
from pipelines.storage.errors import StorageError


class ContradictionError(ValueError):
    """Parts of a file that should agree contradict each other."""


def is_damage(error: Exception) -> bool:
    """Return whether an exception that was raised while parsing content is the fault of the content."""
    if isinstance(error, (StorageError, SettingError, ShardChangedError, FileNotFoundError)):
        return False
    return not (isinstance(error, OSError) and error.errno is not None)


def reason_of(error: BaseException) -> str:
    """Return the message of an exception for a row in errors/."""
    return clipped(str(error)) or type(error).__name__
