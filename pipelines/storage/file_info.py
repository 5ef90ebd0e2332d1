"""What is known of a stored file without opening it, hashes, and the names that files have while they are written."""

import hashlib
import re
import uuid
from dataclasses import dataclass, field

HASH_DIGITS = 16
"""64 bits: two of a million names are alike with probability 3e-8."""
OLD_HASH_DIGITS = 10
"""Of version 0.1. Both are the first digits of the same hash, so an old name is the beginning of a new one."""

TEMPORARY = re.compile(r"(?:\..+|.+\..+)\.[0-9a-f]{8}\.tmp|.+\.[0-9a-f]{32}\.tmp", re.DOTALL)
"""Names of files that are being written, or were when their writer was killed: `.NAME.xxxxxxxx.tmp` today; version 0.1
also wrote `NAME.xxxxxxxx.tmp` and names with 32 digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """One stored file."""

    uri: str
    size_bytes: int
    fingerprint: str
    """Changes when the content changes: size and etag, or modification time where the store has no etag."""
    modified_s: float | None = field(default=None, compare=False)
    """Seconds since 1970, None where the store does not say; stores round it in more ways than one."""


def short_hash(*parts: str, digits: int = HASH_DIGITS) -> str:
    """Hexadecimal digits that depend on every part and on their order."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:digits]


def temporary_name(name: str) -> str:
    """A name, in the same folder, for what will be called `name` when it is whole; another one at every call."""
    return f".{name}.{uuid.uuid4().hex[:8]}.tmp"


def is_temporary(uri: str) -> bool:
    """Whether a file has such a name. No listing shows it: it is no part of anything yet."""
    return uri.endswith(".tmp") and TEMPORARY.fullmatch(uri.rsplit("/", 1)[-1]) is not None
