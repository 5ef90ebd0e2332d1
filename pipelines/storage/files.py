"""Files behind URIs, through fsspec: list, fingerprint, open, publish.

A URI is a plain local path or anything fsspec understands: `s3://bucket/folder` (package s3fs), `gs://` (gcsfs), `az://`
and `abfs://` (adlfs), `file://`, and in tests `memory://`. Credentials and endpoints come from the usual places, and
nothing secret travels in arguments: the environment (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_...`), the machine's role, or fsspec's own configuration
(`FSSPEC_S3_ANON=true`, `~/.config/fsspec/*.json`).

S3 requests that fail for a passing reason (5xx, throttling, a dropped or stalled connection) are tried again by
botocore, ATTEMPTS times in all, after random waits that grow exponentially; `AWS_MAX_ATTEMPTS` and `AWS_RETRY_MODE`
overrule that. gcsfs and adlfs retry by themselves. What is still wrong then, or was wrong for good, is a `StorageError`
(see `pipelines.storage.errors`).
"""

import io
import os
from collections.abc import Iterator, Sequence
from typing import IO

from pipelines.errors import SettingError, ShardChangedError
from pipelines.storage import local_files, remote_files
from pipelines.storage.errors import ExplainedFile, StorageError, explained
from pipelines.storage.file_info import HASH_DIGITS, OLD_HASH_DIGITS, FileInfo, is_temporary, short_hash, temporary_name
from pipelines.storage.remote_files import ATTEMPTS, filesystem
from pipelines.storage.uris import OBJECT_STORES, S3, WEB, check_given, join, normalise, protocol, resolve

# fmt: off
__all__ = [
    "ATTEMPTS", "HASH_DIGITS", "HAS_CHANGED", "OLD_HASH_DIGITS", "FileInfo", "StorageError", "TooLargeError",
    "check_place", "check_writable",
    "create_once", "exists", "explained", "filesystem", "glob_files", "is_temporary", "iter_files", "join",
    "list_files", "list_uris", "normalise", "open_read", "protocol", "publish", "read_bytes", "remove",
    "remove_stale_temporaries", "resolve", "short_hash", "stat",
]
# fmt: on
HAS_CHANGED = "has changed while it was read; the same command reads it again"


def check_place(option: str, text: str) -> None:
    """Raises SettingError for what is no place, or in a storage that nothing here can open."""
    check_given(option, text)
    try:
        remote_files.driver(protocol(normalise(text)))
    except ValueError as error:
        raise SettingError(f"{option} {text!r}: {error}") from error


def check_writable(option: str, text: str, folders: Sequence[str] = ()) -> None:
    """Raises SettingError for a place that cannot be written to, as far as can be known without writing.

    folders: what must be folders there, by their paths below it; empty where the place is a file.
    """
    check_given(option, text)
    uri = normalise(text)
    if protocol(uri) in WEB:
        raise SettingError(f"{option} {text!r}: web servers take no files. Give a folder or an object store.")
    for path in [join(uri, folder) if folder else uri for folder in folders or [""]] if protocol(uri) == "file" else []:
        if reason := local_files.why_not_writable(path, is_folder=bool(folders)):
            raise SettingError(f"{option} {text!r} cannot be written: {reason}. Give another place.")


class TooLargeError(ValueError):
    """A file has more bytes than the caller wanted to hold in memory."""


def iter_files(root: str) -> Iterator[FileInfo]:
    """Every file below `root` (or `root` itself when it is a file) in the store's order; none when nothing is there.

    Streams: a page of at most 1,000 objects at a time from S3, a folder at a time from a disk; no request for a file.
    Files that are being written are left out, here and in every other listing.
    """
    yield from local_files.iter_files(root) if protocol(root) == "file" else remote_files.iter_files(root)


def list_files(root: str) -> list[FileInfo]:
    """`iter_files`, sorted by URI."""
    return sorted(iter_files(root), key=lambda info: info.uri)


def list_uris(root: str) -> list[str]:
    """The URIs of `list_files`; a local disk is asked for names alone, which is several times as fast."""
    if protocol(root) == "file" and not os.path.isfile(root):
        return sorted(entry.path for entry in local_files.iter_entries(root))
    return [info.uri for info in list_files(root)]


def glob_files(pattern: str) -> list[tuple[str, FileInfo | None]]:
    """(URI, file) of what matches `pattern` (`*`, `**`, `?`, `[...]`), sorted by URI; None for folders."""
    return local_files.glob_files(pattern) if protocol(pattern) == "file" else remote_files.glob_files(pattern)


def stat(uri: str) -> FileInfo | None:
    """The file at a URI, in one request; None when there is none, or a folder."""
    return local_files.stat_file(filesystem(uri)[1]) if protocol(uri) == "file" else remote_files.stat(uri)


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    if protocol(uri) == "file":
        return os.path.exists(path)
    try:
        with explained(uri, "read"):
            fs.info(path)
    except FileNotFoundError:
        return False
    return True


def open_read(uri: str, block_size_bytes: int = 4 << 20, fingerprint: str = "") -> IO[bytes]:
    """Open for reading with seeks; remote files are read ahead by one block, so memory stays constant.

    Raises:
        ShardChangedError: the file is not the one with this fingerprint. On S3 everything that is read through the open
            file is of one version.
    """
    fs, path = filesystem(uri)
    if protocol(uri) == "file":
        local = open(path, "rb")  # noqa: SIM115
        try:
            _check_version(uri, fingerprint, local_files.file_info(path, os.fstat(local.fileno())).fingerprint)
        except ShardChangedError:
            local.close()
            raise
        return local
    with explained(uri, "read"):
        file = fs.open(path, "rb", block_size=block_size_bytes, cache_type="none")
        details = getattr(file, "details", {}) if fingerprint else {}
    if remote_files.has_version(details):  # else the driver does not know what it has opened
        _check_version(uri, fingerprint, remote_files.file_info(fs, uri, {**details, "name": path}).fingerprint)
    return io.BufferedReader(ExplainedFile(uri, file), block_size_bytes)


def read_bytes(uri: str, limit_bytes: int | None = None, fingerprint: str = "") -> bytes:
    """The whole file.

    Raises:
        TooLargeError: it has more than `limit_bytes` bytes; no more than that is read.
        ShardChangedError: the file is not the one with this fingerprint. Known for local files and S3; elsewhere the
            answer to a read does not tell its version.
    """
    fs, path = filesystem(uri)
    if protocol(uri) == "file" and fingerprint:
        with open_read(uri, fingerprint=fingerprint) as file:
            content = file.read(-1 if limit_bytes is None else limit_bytes + 1)
    elif protocol(uri) in S3 and fingerprint:
        content, found = remote_files.read_version(uri, limit_bytes)
        _check_version(uri, fingerprint, found)
    elif protocol(uri) == "file":
        content = local_files.read_file(path, limit_bytes)
    else:
        content = remote_files.read_bytes(uri, limit_bytes)
    if limit_bytes is not None and len(content) > limit_bytes:
        raise TooLargeError(f"{uri} has more than {limit_bytes} bytes")
    return content


def publish(uri: str, content: bytes) -> None:
    """Make `content` appear at `uri` in one step: whole or not at all, replacing what was there."""
    fs, path = filesystem(uri)
    kind = protocol(uri)
    if kind == "file":
        local_files.publish_file(path, content)
        return
    with explained(uri, "write"):
        if kind in OBJECT_STORES:
            fs.pipe_file(path, content)  # s3fs: one PUT, above 100 MB a multipart upload, which appears as a whole too
        else:
            folder, _, name = path.rpartition("/")
            partial = f"{folder}/{temporary_name(name)}"
            fs.makedirs(folder, exist_ok=True)
            fs.pipe_file(partial, content)
            fs.mv(partial, path)


def create_once(uri: str, content: bytes) -> None:
    """Publish a file unless there is one: of several at once, one creates it, whole, and the others leave it alone.

    On disks that is a hard link, on object stores a conditional PUT. A store that ignores the condition, and drivers of
    file systems that have no such thing (sftp, hdfs, ...), let two callers at once both write: the last one's content
    stays. `pipelines.storage.store.honors_create_once` tells.
    """
    fs, path = filesystem(uri)
    kind = protocol(uri)
    if kind == "file":
        local_files.create_file(path, content)
        return
    if kind not in OBJECT_STORES:
        if stat(uri) is None:
            publish(uri, content)
        return
    failure: Exception | None = None
    try:
        with explained(uri, "write"):
            fs.pipe_file(path, content, mode="create")
    except Exception as error:  # every driver has its own for "it is there"
        failure = error
    if failure is not None and stat(uri) is None:
        raise failure


def remove(uri: str) -> None:
    """Delete a file; already gone is fine."""
    fs, path = filesystem(uri)
    try:
        with explained(uri, "delete"):
            fs.rm_file(path)
    except FileNotFoundError:
        return


def remove_stale_temporaries(root: str, older_than_s: float) -> int:
    """Delete what killed writers have left below a local root that long ago; returns the number of files.

    Object stores have nothing of the kind. On other remote file systems it stays, and no listing shows it.
    """
    return local_files.remove_stale_files(root, older_than_s) if protocol(root) == "file" else 0


def _check_version(uri: str, wanted: str, found: str) -> None:
    if wanted and wanted != found:
        raise ShardChangedError(f"{uri} {HAS_CHANGED}")
