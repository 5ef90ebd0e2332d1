"""Files at URIs, through fsspec: list, fingerprint, open, publish. The names here are the interface of the package."""

from pipelines.storage.errors import StorageError, explained
from pipelines.storage.file_info import (
    HASH_DIGITS,
    OLD_HASH_DIGITS,
    FileInfo,
    is_temporary,
    short_hash,
    temporary_name,
)
from pipelines.storage.files import (
    HAS_CHANGED,
    TooLargeError,
    check_place,
    check_writable,
    create_once,
    exists,
    glob_files,
    iter_files,
    list_files,
    list_uris,
    open_read,
    publish,
    read_bytes,
    remove,
    remove_stale_temporaries,
    stat,
)
from pipelines.storage.remote_files import ATTEMPTS, filesystem
from pipelines.storage.uris import join, normalize, protocol, resolve

__all__ = [
    "ATTEMPTS",
    "HASH_DIGITS",
    "HAS_CHANGED",
    "OLD_HASH_DIGITS",
    "FileInfo",
    "StorageError",
    "TooLargeError",
    "check_place",
    "check_writable",
    "create_once",
    "exists",
    "explained",
    "filesystem",
    "glob_files",
    "is_temporary",
    "iter_files",
    "join",
    "list_files",
    "list_uris",
    "normalize",
    "open_read",
    "protocol",
    "publish",
    "read_bytes",
    "remove",
    "remove_stale_temporaries",
    "resolve",
    "short_hash",
    "stat",
    "temporary_name",
]
