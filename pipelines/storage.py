"""Files behind URIs, through fsspec: list, fingerprint, open, publish.

A URI is a plain local path or anything fsspec understands: `s3://bucket/folder` (package s3fs), `gs://` (gcsfs), `az://`
and `abfs://` (adlfs), `file://`, and in tests `memory://`. Credentials and endpoints come from the usual places, and
nothing secret travels in arguments: the environment (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_...`), the machine's role, or fsspec's own configuration
(`FSSPEC_S3_ANON=true`, `~/.config/fsspec/*.json`).

S3 requests that fail for a passing reason (5xx, throttling, a dropped or stalled connection) are tried again by
botocore, ATTEMPTS times in all, after random waits that grow exponentially; `AWS_MAX_ATTEMPTS` and `AWS_RETRY_MODE`
overrule that. gcsfs and adlfs retry by themselves. What is still wrong then, or was wrong for good, is a `StorageError`
(see `pipelines.storage_errors`).
"""

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Any, cast

import fsspec
from fsspec.core import url_to_fs

from pipelines import local_files
from pipelines.errors import ShardChangedError
from pipelines.file_info import HASH_DIGITS, OLD_HASH_DIGITS, FileInfo, is_temporary, short_hash, temporary_name
from pipelines.storage_errors import ExplainedFile, StorageError, explained
from pipelines.uris import OBJECT_STORES, S3, join, normalise, protocol, resolve

# fmt: off
__all__ = [
    "ATTEMPTS", "HASH_DIGITS", "HAS_CHANGED", "OLD_HASH_DIGITS", "FileInfo", "StorageError", "TooLargeError",
    "create_once", "exists", "explained", "filesystem", "glob_files", "is_temporary", "iter_files", "join",
    "list_files", "list_uris", "normalise", "open_read", "protocol", "publish", "read_bytes", "remove",
    "remove_stale_temporaries", "resolve", "short_hash", "stat",
]
# fmt: on
VERSION_FIELDS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
TIME_FIELDS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
HAS_CHANGED = "has changed while it was read; the same command reads it again"
ATTEMPTS = 6
"""Of one S3 request; the waits before the 2nd to 6th are random, at most 1, 2, 4, 8 and 16 s."""


class TooLargeError(ValueError):
    """A file has more bytes than the caller wanted to hold in memory."""


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path inside it. Raises ValueError for an unknown or uninstalled protocol."""
    try:
        return url_to_fs(uri, **_options(protocol(uri)))
    except ImportError as error:
        raise ValueError(f"{uri!r} needs a storage driver that is not installed: {error}") from error


def iter_files(root: str) -> Iterator[FileInfo]:
    """Every file below `root` (or `root` itself when it is a file) in the store's order; none when nothing is there.

    Streams: a page of at most 1,000 objects at a time from S3, a folder at a time from a disk; no request for a file.
    Files that are being written are left out, here and in every other listing.
    """
    kind = protocol(root)
    if kind == "file":
        yield from local_files.iter_files(root)
        return
    found = _s3_files(root) if kind in S3 else _remote_files(root)
    yield from (info for info in found if not is_temporary(info.uri))


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
    if protocol(pattern) == "file":
        return local_files.glob_files(pattern)
    fs, path = filesystem(pattern)
    fs.invalidate_cache()
    with explained(pattern, "list"):
        found = cast(dict[str, dict[str, Any]], fs.glob(path, detail=True))
    entries = (
        (_uri(fs, pattern, name), _info(fs, pattern, info) if info["type"] == "file" else None)
        for name, info in found.items()
        if not is_temporary(name)
    )
    return sorted(entries, key=lambda entry: entry[0])


def stat(uri: str) -> FileInfo | None:
    """The file at a URI, in one request; None when there is none, or a folder."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    try:
        with explained(uri, "read"):
            info = _s3_object(fs, path) if protocol(uri) in S3 else fs.info(path)
    except FileNotFoundError:
        return None
    return _info(fs, uri, info) if info["type"] == "file" else None


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
    if any(details.get(name) for name in VERSION_FIELDS):  # else the driver does not know what it has opened
        _check_version(uri, fingerprint, _info(fs, uri, {**details, "name": path}).fingerprint)
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
        content, found = _get_s3(uri, fs, path, limit_bytes)
        _check_version(uri, fingerprint, found)
    elif protocol(uri) == "file":
        content = local_files.read_file(path, limit_bytes)
    else:
        content = _read_remote(uri, fs, path, limit_bytes)
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
    stays. `pipelines.store.honors_create_once` tells.
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


def _get_s3(uri: str, fs: Any, path: str, limit_bytes: int | None) -> tuple[bytes, str]:
    """The content of an object and its fingerprint, in one request."""
    bucket, key, _ = fs.split_path(path)
    span = {} if limit_bytes is None else {"Range": f"bytes=0-{limit_bytes}"}
    try:
        with explained(uri, "read"):
            answer = fs.call_s3("get_object", Bucket=bucket, Key=key, **span)
            content = cast(bytes, fsspec.asyn.sync(fs.loop, answer["Body"].read))
    except StorageError as error:
        if error.kind != "range":  # an empty object has no byte 0
            raise
        found = stat(uri)
        return b"", "" if found is None else found.fingerprint
    size_bytes = answer["ContentRange"].rpartition("/")[2] if "ContentRange" in answer else answer["ContentLength"]
    return content, _info(fs, uri, {"name": path, "size": size_bytes, "ETag": answer["ETag"]}).fingerprint


def _check_version(uri: str, wanted: str, found: str) -> None:
    if wanted and wanted != found:
        raise ShardChangedError(f"{uri} {HAS_CHANGED}")


def _read_remote(uri: str, fs: fsspec.AbstractFileSystem, path: str, limit_bytes: int | None) -> bytes:
    """One request: a range where there is a limit, else without asking for the size first, as s3fs likes to."""
    if limit_bytes is not None:
        span: dict[str, int] = {"start": 0, "end": limit_bytes + 1}
    else:
        span = {"max_concurrency": 1} if protocol(uri) in S3 else {}
    try:
        with explained(uri, "read"):
            return cast(bytes, fs.cat_file(path, **span))
    except StorageError as error:
        if error.kind == "range":  # an empty object has no byte 0
            return b""
        raise


def _options(kind: str) -> dict[str, Any]:
    """Retries for S3, unless the user's environment or fsspec configuration says otherwise; no listings in memory."""
    if kind not in S3:
        return {}
    retries: dict[str, Any] = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    chosen = {} if {"AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"} & os.environ.keys() else {"retries": retries}
    for name in sorted(S3):
        chosen |= fsspec.config.conf.get(name, {}).get("config_kwargs", {})
    return {"config_kwargs": chosen, "use_listings_cache": False}


def _remote_files(root: str) -> Iterator[FileInfo]:
    fs, path = filesystem(root)
    fs.invalidate_cache()
    with explained(root, "list"):
        found = fs.find(path, detail=True)
    return (_info(fs, root, info) for info in found.values())


def _s3_files(root: str) -> Iterator[FileInfo]:
    fs, path = filesystem(root)
    bucket, key, _ = fs.split_path(path)
    place: dict[str, str] = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else ""}
    is_empty = True
    while True:
        with explained(root, "list"):
            page = fs.call_s3("list_objects_v2", **place)
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):  # what consoles make to show an empty folder
                is_empty = False
                info = {"size": entry["Size"], "ETag": entry.get("ETag"), "name": f"{bucket}/{entry['Key']}"}
                yield _info(fs, root, {**info, "modified": entry.get("LastModified")})
        if not page.get("IsTruncated"):
            break
        place["ContinuationToken"] = page["NextContinuationToken"]
    if is_empty and key and (file := stat(root)) is not None:
        yield file


def _s3_object(fs: Any, path: str) -> dict[str, Any]:
    """What `fs.info` says of an object; that also looks for a folder, with a second request."""
    bucket, key, _ = fs.split_path(path)
    if not key:
        return fs.info(path)
    found = fs.call_s3("head_object", fs.kwargs, Bucket=bucket, Key=key)
    kept = {name: found.get(name) for name in ("ETag", "LastModified")}
    return {"name": path, "type": "file", "size": found["ContentLength"], **kept}


def _uri(fs: fsspec.AbstractFileSystem, like: str, path: str) -> str:
    """The URI of a path of the file system, spelt as `like` is."""
    scheme = protocol(like)
    if scheme == "file":
        return path
    return f"{scheme}://{path.lstrip('/')}" if scheme in OBJECT_STORES else fs.unstrip_protocol(path)


def _info(fs: fsspec.AbstractFileSystem, like: str, info: dict[str, Any]) -> FileInfo:
    version = next((info[field] for field in VERSION_FIELDS if info.get(field)), "")
    if isinstance(version, datetime):  # some drivers spell a time in one way when listing, in another when asked
        version = version.timestamp()
    if isinstance(version, str) and protocol(like) not in S3:  # and adlfs puts quotes around an etag when asked
        version = version.strip('"')
    size_bytes = int(info["size"] or 0)
    return FileInfo(
        uri=_uri(fs, like, info["name"]),
        size_bytes=size_bytes,
        fingerprint=short_hash(str(size_bytes), str(version)),
        modified_s=_seconds(next((info[field] for field in TIME_FIELDS if info.get(field)), None)),
    )


def _seconds(time: Any) -> float | None:
    """A driver's idea of a time as seconds since 1970; a time without a zone is UTC."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return None if time is None else float(time)
