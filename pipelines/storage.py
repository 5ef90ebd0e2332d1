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

import hashlib
import io
import os
import posixpath
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any, cast

import fsspec
from fsspec.core import url_to_fs

from pipelines.storage_errors import StorageError, explained

# One PUT on these is atomic: readers see the old object or the new one, never a part.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2", "memory"})
S3 = frozenset({"s3", "s3a"})
VERSION_FIELDS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
TIME_FIELDS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
HAS_CHANGED = "has changed while it was read; the same command reads it again"
ATTEMPTS = 6
"""Of one S3 request; the waits before the 2nd to 6th are random, at most 1, 2, 4, 8 and 16 s."""


class TooLargeError(ValueError):
    """A file has more bytes than the caller wanted to hold in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileInfo:
    """One stored file."""

    uri: str
    size_bytes: int
    fingerprint: str
    """Changes when the content changes: size and etag, or modification time where the store has no etag."""
    modified_s: float | None = field(default=None, compare=False)
    """Seconds since 1970, None where the store does not say; stores round it in more ways than one."""


HASH_DIGITS = 16
"""64 bits: two of a million names are alike with probability 3e-8."""
OLD_HASH_DIGITS = 10
"""Of version 0.1. Both are the first digits of the same hash, so an old name is the beginning of a new one."""


def short_hash(*parts: str, digits: int = HASH_DIGITS) -> str:
    """Hexadecimal digits that depend on every part and on their order."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:digits]


def normalise(uri: str) -> str:
    """One spelling for one place: absolute local paths, no trailing slash on remote ones."""
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    if "://" not in uri:
        return os.path.abspath(os.path.expanduser(uri))
    scheme, rest = uri.split("://", 1)
    return f"{scheme}://{rest.rstrip('/')}"


def join(root: str, *parts: str) -> str:
    """`root` and the parts below it, as one URI."""
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def resolve(reference: str, folder: str) -> str:
    """The URI that `reference` means in a file that lies in `folder`.

    Relative ones start in the folder, those that begin with a slash at the root of the disk or of the bucket.
    """
    if "://" in reference:
        return normalise(reference)
    scheme, rest = folder.split("://", 1) if "://" in folder else ("", folder)
    if not scheme:
        return normalise(os.path.join(rest, reference))
    bucket, _, path = rest.partition("/")
    return f"{scheme}://{bucket}{posixpath.normpath(posixpath.join('/' + path, reference))}"


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path inside it. Raises ValueError for an unknown or uninstalled protocol."""
    try:
        return url_to_fs(uri, **_options(protocol(uri)))
    except ImportError as error:
        raise ValueError(f"{uri!r} needs a storage driver that is not installed: {error}") from error


def protocol(uri: str) -> str:
    """`"s3"` for `s3://...`, `"file"` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


def iter_files(root: str) -> Iterator[FileInfo]:
    """Every file below `root` (or `root` itself when it is a file) in the store's order; none when nothing is there.

    Streams: a page of at most 1,000 objects at a time from S3, a folder at a time from a disk; no request for a file.
    """
    kind = protocol(root)
    if kind == "file":
        yield from _local_files(root)
    elif kind in S3:
        yield from _s3_files(root)
    else:
        fs, path = filesystem(root)
        fs.invalidate_cache()
        with explained(root, "list"):
            found = fs.find(path, detail=True)
        yield from (_info(fs, root, info) for info in found.values())


def list_files(root: str) -> list[FileInfo]:
    """`iter_files`, sorted by URI."""
    return sorted(iter_files(root), key=lambda info: info.uri)


def list_uris(root: str) -> list[str]:
    """The URIs of `list_files`; a local disk is asked for names alone, which is several times as fast."""
    if protocol(root) == "file" and not os.path.isfile(root):
        return sorted(entry.path for entry in _local_entries(root))
    return [info.uri for info in list_files(root)]


def glob_files(pattern: str) -> list[tuple[str, FileInfo | None]]:
    """(URI, file) of what matches `pattern` (`*`, `**`, `?`, `[...]`), sorted by URI; None for folders."""
    fs, path = filesystem(pattern)
    fs.invalidate_cache()
    with explained(pattern, "list"):
        found = cast(dict[str, dict[str, Any]], fs.glob(path, detail=True))
    entries = (
        (_uri(fs, pattern, name), _info(fs, pattern, info) if info["type"] == "file" else None)
        for name, info in found.items()
    )
    return sorted(entries, key=lambda entry: entry[0])


def stat(uri: str) -> FileInfo | None:
    """The file at a URI, in one request; None when there is none, or a folder."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    try:
        with explained(uri, "read"):
            info = fs.info(path)
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


def open_read(uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
    """Open for reading with seeks; remote files are read ahead by one block, so memory stays constant."""
    fs, path = filesystem(uri)
    if protocol(uri) == "file":
        return open(path, "rb")
    with explained(uri, "read"):
        file = fs.open(path, "rb", block_size=block_size_bytes, cache_type="none")
    return io.BufferedReader(_RemoteFile(uri, file), block_size_bytes)


def read_bytes(uri: str, limit_bytes: int | None = None) -> bytes:
    """The whole file.

    Raises:
        TooLargeError: it has more than `limit_bytes` bytes; no more than that is read.
    """
    fs, path = filesystem(uri)
    if protocol(uri) == "file":
        with open(path, "rb") as file:
            content = file.read() if limit_bytes is None else file.read(limit_bytes + 1)
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
        _publish_local(path, content)
        return
    with explained(uri, "write"):
        if kind in OBJECT_STORES:
            fs.pipe_file(path, content)  # s3fs: one PUT, above 100 MB a multipart upload, which appears as a whole too
        else:
            partial = f"{path}.{uuid.uuid4().hex}.tmp"
            fs.makedirs(fs._parent(path), exist_ok=True)
            fs.pipe_file(partial, content)
            fs.mv(partial, path)


def create_once(uri: str, content: bytes) -> None:
    """Publish a file unless there is one: of several at once, one creates it, whole, and the others leave it alone."""
    fs, path = filesystem(uri)
    if protocol(uri) == "file":
        return _create_local(path, content)
    try:
        fs.pipe_file(path, content, mode="create")
    except Exception:  # every driver has its own for "it is there"
        if not exists(uri):
            raise


def remove(uri: str) -> None:
    """Delete a file; already gone is fine."""
    fs, path = filesystem(uri)
    try:
        with explained(uri, "delete"):
            fs.rm_file(path)
    except FileNotFoundError:
        return


class _RemoteFile(io.RawIOBase):
    """A driver's file whose failures are explained."""

    def __init__(self, uri: str, file: Any) -> None:
        self._uri = uri
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with explained(self._uri, "read"):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


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
    configured = fsspec.config.conf.get(kind, {}).get("config_kwargs", {})
    return {"config_kwargs": {**chosen, **configured}, "use_listings_cache": False}


def _local_files(root: str) -> Iterator[FileInfo]:
    if os.path.isfile(root):
        yield _local_info(root, os.stat(root))
        return
    for entry in _local_entries(root):
        try:
            yield _local_info(entry.path, entry.stat())
        except FileNotFoundError:
            continue  # deleted meanwhile


def _local_entries(root: str) -> Iterator["os.DirEntry[str]"]:
    """The files below a folder: depth first, sorted within a folder; links are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    pending = [root] if os.path.isdir(root) else []
    while pending:
        folder = pending.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        yield from (entry for entry in entries if entry.is_file())
        pending += [entry.path for entry in reversed(entries) if entry.is_dir()]


def _local_info(path: str, status: os.stat_result) -> FileInfo:
    fingerprint = short_hash(str(status.st_size), str(status.st_mtime))
    return FileInfo(uri=path, size_bytes=status.st_size, fingerprint=fingerprint, modified_s=status.st_mtime)


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


def _publish_local(path: str, content: bytes) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    partial = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        if os.path.exists(partial):
            os.remove(partial)
        raise


def _create_local(path: str, content: bytes) -> None:
    partial = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        with open(partial, "wb") as file:
            file.write(content)
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not os.path.exists(path):
            _publish_local(path, content)
    finally:
        os.remove(partial)


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
