"""Files at URIs, through fsspec: list, fingerprint, open, publish.

A URI is a plain local path or anything that fsspec understands: `s3://bucket/folder` (package s3fs), `gs://` (gcsfs),
`az://` and `abfs://` (adlfs), `file://`, and in tests `memory://`. Credentials and endpoints come from the usual
places: the environment (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`,
`AZURE_STORAGE_...`), the machine's role, or fsspec's own configuration (`FSSPEC_S3_ANON=true`,
`~/.config/fsspec/*.json`). No secret is passed in arguments.

botocore retries S3 requests that fail temporarily (5xx, throttling, a dropped or stalled connection), with ATTEMPTS
attempts in all and random, exponentially growing waits. `AWS_MAX_ATTEMPTS` and `AWS_RETRY_MODE` override that. gcsfs
and adlfs retry by themselves. Any other error, and any that remains, is a `StorageError` (see
`pipelines.storage.errors`).
"""

import io
import os
from collections.abc import Iterator, Sequence
from typing import IO

from pipelines.errors import SettingError, ShardChangedError
from pipelines.storage import local_files, remote_files
from pipelines.storage.errors import ExplainedFile, explained
from pipelines.storage.file_info import FileInfo, temporary_name
from pipelines.storage.remote_files import filesystem
from pipelines.storage.uris import OBJECT_STORES, S3, WEB, check_given, join, normalize, protocol

HAS_CHANGED = "has changed while it was read; the same command reads it again"


def check_place(option: str, text: str) -> None:
    """Raise SettingError for texts that are not a place, and for storage without an installed driver."""
    check_given(option, text)
    try:
        remote_files.driver(protocol(normalize(text)))
    except ValueError as error:
        raise SettingError(f"{option} {text!r}: {error}") from error


def check_writable(option: str, text: str, folders: Sequence[str] = ()) -> None:
    """Raise SettingError for a place that cannot be written to, as far as can be known without writing.

    Args:
        option: The option that named the place, for the message.
        text: The place.
        folders: Paths of the folders that are going to be below it; empty if the place is a file.
    """
    check_given(option, text)
    uri = normalize(text)
    if protocol(uri) in WEB:
        raise SettingError(f"{option} {text!r}: web servers take no files. Give a folder or an object store.")
    for path in [join(uri, folder) if folder else uri for folder in folders or [""]] if protocol(uri) == "file" else []:
        if reason := local_files.why_not_writable(path, is_folder=bool(folders)):
            raise SettingError(f"{option} {text!r} cannot be written: {reason}. Give another place.")


class TooLargeError(ValueError):
    """A file has more bytes than the caller wants to hold in memory."""


def iter_files(root: str) -> Iterator[FileInfo]:
    """Yield every file below `root`, or `root` itself if it is a file, in the store's order.

    Streams a page of at most 1,000 objects at a time from S3, or a folder at a time from a disk, without a request for
    each file. Files that are being written are left out, here and in every other listing.
    """
    yield from local_files.iter_files(root) if protocol(root) == "file" else remote_files.iter_files(root)


def list_files(root: str) -> list[FileInfo]:
    """Return the files of `iter_files`, sorted by URI."""
    return sorted(iter_files(root), key=lambda info: info.uri)


def list_uris(root: str) -> list[str]:
    """Return the URIs of `list_files`. On local disks only names are read, which is several times as fast."""
    if protocol(root) == "file" and not os.path.isfile(root):
        return sorted(entry.path for entry in local_files.iter_entries(root))
    return [info.uri for info in list_files(root)]


def glob_files(pattern: str) -> list[tuple[str, FileInfo | None]]:
    """Return (URI, file or None for a folder) of what matches `pattern` (`*`, `**`, `?`, `[...]`), sorted by URI."""
    return local_files.glob_files(pattern) if protocol(pattern) == "file" else remote_files.glob_files(pattern)


def stat(uri: str) -> FileInfo | None:
    """Return the file at a URI, with one request, or None if nothing or a folder is there."""
    return local_files.stat_file(filesystem(uri)[1]) if protocol(uri) == "file" else remote_files.stat(uri)


def exists(uri: str) -> bool:
    """Return whether a file or folder exists."""
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
    """Open a file for reading with seeks. Remote files are read ahead by one block, so memory stays constant.

    Raises:
        ShardChangedError: the file does not have this fingerprint. On S3, everything that is read through the open file
            belongs to one version.
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
    if remote_files.has_version(details):  # otherwise the driver does not know what it has opened
        _check_version(uri, fingerprint, remote_files.file_info(fs, uri, {**details, "name": path}).fingerprint)
    return io.BufferedReader(ExplainedFile(uri, file), block_size_bytes)


def read_bytes(uri: str, limit_bytes: int | None = None, fingerprint: str = "") -> bytes:
    """Read the whole file.

    Raises:
        TooLargeError: the file has more than `limit_bytes` bytes, which are not read.
        ShardChangedError: the file does not have this fingerprint. Checked for local files and S3; other stores do not
            report the version of what was read.
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
    """Write a file atomically: it appears whole or not at all, and replaces an existing file."""
    fs, path = filesystem(uri)
    kind = protocol(uri)
    if kind == "file":
        local_files.publish_file(path, content)
        return
    with explained(uri, "write"):
        if kind in OBJECT_STORES:
            fs.pipe_file(path, content)  # s3fs: one PUT, or above 100 MB a multipart upload, which is atomic too
        else:
            folder, _, name = path.rpartition("/")
            partial = f"{folder}/{temporary_name(name)}"
            fs.makedirs(folder, exist_ok=True)
            fs.pipe_file(partial, content)
            fs.mv(partial, path)


def create_once(uri: str, content: bytes) -> None:
    """Publish a file unless it exists. If several callers do it at once, exactly one of them creates the whole file.

    This uses a hard link on disks and a conditional PUT on object stores. With a store that ignores the condition, and
    with drivers that have nothing of the kind (sftp, hdfs, ...), two callers at once both write, and the last content
    stays; `pipelines.storage.store.honors_create_once` detects that.
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
    except Exception as error:  # every driver has its own exception for an existing file
        failure = error
    if failure is not None and stat(uri) is None:
        raise failure


def remove(uri: str) -> None:
    """Delete a file. It is not an error if the file does not exist."""
    fs, path = filesystem(uri)
    try:
        with explained(uri, "delete"):
            fs.rm_file(path)
    except FileNotFoundError:
        return


def remove_stale_temporaries(root: str, older_than_s: float) -> int:
    """Delete temporary files of killed writers below a local root that are this old, and return their number.

    Object stores have no such files. On other remote file systems they stay, but no listing shows them.
    """
    return local_files.remove_stale_files(root, older_than_s) if protocol(root) == "file" else 0


def _check_version(uri: str, wanted: str, found: str) -> None:
    if wanted and wanted != found:
        raise ShardChangedError(f"{uri} {HAS_CHANGED}")
