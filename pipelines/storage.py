"""Files behind URIs, through fsspec: list, fingerprint, open, publish.

A URI is a plain local path or anything fsspec understands (`s3://bucket/dir`, `gs://`, `memory://`). Credentials and
endpoints come from the environment, as fsspec and s3fs read it (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`,
`FSSPEC_S3_...`): nothing secret travels in arguments.
"""

import hashlib
import os
import uuid
from dataclasses import dataclass
from typing import IO, Any, cast

import fsspec
from fsspec.core import url_to_fs

# One PUT on these is atomic: readers see the old object or the new one, never a part.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "r2", "memory"})
VERSION_FIELDS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One stored file."""

    uri: str
    size_bytes: int
    fingerprint: str
    """Changes when the content changes: size and etag, or modification time where the store has no etag."""


def short_hash(*parts: str) -> str:
    """Ten hexadecimal digits that depend on every part and on their order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


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


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path inside it. Raises ValueError for an unknown or uninstalled protocol."""
    try:
        return url_to_fs(uri)
    except ImportError as error:
        raise ValueError(f"{uri!r} needs a storage driver that is not installed: {error}") from error


def protocol(uri: str) -> str:
    """`"s3"` for `s3://...`, `"file"` for a path."""
    return uri.split("://", 1)[0] if "://" in uri else "file"


def list_files(root: str) -> list[FileInfo]:
    """Every file below `root` (or `root` itself when it is a file), sorted by URI; empty when nothing is there."""
    fs, path = filesystem(root)
    fs.invalidate_cache()
    found = fs.find(path, detail=True)
    return sorted((_info(fs, root, info) for info in found.values()), key=lambda info: info.uri)


def glob_files(pattern: str) -> list[str]:
    """URIs of the files and folders that match `pattern` (`*`, `**`, `?`, `[...]`), sorted."""
    fs, path = filesystem(pattern)
    fs.invalidate_cache()
    return sorted(_uri(fs, pattern, match) for match in fs.glob(path))


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    return fs.exists(path)


def is_folder(uri: str) -> bool:
    """Whether the URI is a folder (on object stores: a prefix with something below it)."""
    fs, path = filesystem(uri)
    return fs.isdir(path)


def open_read(uri: str, block_size_bytes: int = 4 << 20) -> IO[bytes]:
    """Open for reading with seeks; remote files are read ahead in blocks, so memory stays constant."""
    fs, path = filesystem(uri)
    if protocol(uri) == "file":
        return open(path, "rb")
    return cast(IO[bytes], fs.open(path, "rb", block_size=block_size_bytes, cache_type="readahead"))


def read_bytes(uri: str) -> bytes:
    """The whole file."""
    fs, path = filesystem(uri)
    return cast(bytes, fs.cat_file(path))


def publish(uri: str, content: bytes) -> None:
    """Make `content` appear at `uri` in one step: whole or not at all, replacing what was there."""
    fs, path = filesystem(uri)
    kind = protocol(uri)
    if kind == "file":
        _publish_local(path, content)
    elif kind in OBJECT_STORES:
        fs.pipe_file(path, content)
    else:
        partial = f"{path}.{uuid.uuid4().hex}.tmp"
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(partial, content)
        fs.mv(partial, path)


def remove(uri: str) -> None:
    """Delete a file; already gone is fine."""
    fs, path = filesystem(uri)
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return


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


def _uri(fs: fsspec.AbstractFileSystem, like: str, path: str) -> str:
    """The URI of a path of the file system, spelt as `like` is."""
    scheme = protocol(like)
    if scheme == "file":
        return path
    return f"{scheme}://{path.lstrip('/')}" if scheme in OBJECT_STORES else fs.unstrip_protocol(path)


def _info(fs: fsspec.AbstractFileSystem, like: str, info: dict[str, Any]) -> FileInfo:
    version = next((str(info[field]) for field in VERSION_FIELDS if info.get(field)), "")
    size_bytes = int(info["size"] or 0)
    return FileInfo(
        uri=_uri(fs, like, info["name"]),
        size_bytes=size_bytes,
        fingerprint=short_hash(str(size_bytes), version),
    )
