"""Damaged content, told apart from storage that fails: the first becomes error rows, the second fails its chunk.

Damaged files make decoders raise nearly anything (pyarrow: ArrowInvalid, OSError without a number, KeyError,
UnicodeDecodeError, MemoryError, ...), so damage is what is left when all other causes are excluded.
"""

from pipelines.errors import SettingError, ShardChangedError
from pipelines.storage.errors import StorageError
from pipelines.texts import clipped


class ContradictionError(ValueError):
    """Parts of a file that say the same thing say different things."""


def is_damage(error: Exception) -> bool:
    """Whether an exception that was raised while content was understood is the content's fault."""
    if isinstance(error, (StorageError, SettingError, ShardChangedError, FileNotFoundError)):
        return False
    return not (isinstance(error, OSError) and error.errno is not None)


def reason_of(error: BaseException) -> str:
    """What an exception says, for a row in errors/."""
    return clipped(str(error)) or type(error).__name__
