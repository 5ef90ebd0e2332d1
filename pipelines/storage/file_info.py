"""Metadata of stored files, hashes, and the names of files that are being written.

Tested in tests/pipelines/storage/test_files.py and test_local_files.py.
"""

import hashlib
import re
import uuid
from dataclasses import dataclass, field

HASH_DIGITS = 16
"""64 bits: the probability that two of a million names are equal is 3e-8."""
OLD_HASH_DIGITS = 10
"""Digits in version 0.1. Both are prefixes of the same hash, so an old name is a prefix of a new one."""

TEMPORARY = re.compile(r"(?:\..+|.+\..+)\.[0-9a-f]{8}\.tmp|.+\.[0-9a-f]{32}\.tmp", re.DOTALL)
"""Names of files that are being written, or were when their writer was killed: `.NAME.xxxxxxxx.tmp`. Version 0.1 also
wrote `NAME.xxxxxxxx.tmp` and names with 32 digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """One stored file."""

    uri: str
    size_bytes: int
    fingerprint: str
    """Changes if the content changes: a hash of size and etag, or modification time if the store has no etag."""
    modified_s: float | None = field(default=None, compare=False)
    """Seconds since 1970, or None if the store does not report it. Stores round it in different ways."""


def short_hash(*parts: str, digits: int = HASH_DIGITS) -> str:
    """Return hexadecimal digits that depend on every part and on their order."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:digits]


def temporary_name(name: str) -> str:
    """Return a new temporary name, in the same folder, for a file that is going to be called `name`."""
    return f".{name}.{uuid.uuid4().hex[:8]}.tmp"


def is_temporary(uri: str) -> bool:
    """Return whether a file has a temporary name. Listings leave such files out."""
    return uri.endswith(".tmp") and TEMPORARY.fullmatch(uri.rsplit("/", 1)[-1]) is not None
