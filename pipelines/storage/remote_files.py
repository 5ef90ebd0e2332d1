"""Files on remote storage, through fsspec's drivers. This module hides the differences between the drivers.

Tested in tests/pipelines/storage/test_s3.py, test_s3_names.py and test_files.py.
"""
# pyright: reportAttributeAccessIssue=false
# fsspec imports its modules lazily, and the drivers have methods that its base class lacks.

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import fsspec

from pipelines.storage.errors import StorageError, explained
from pipelines.storage.file_info import FileInfo, is_temporary, short_hash
from pipelines.storage.uris import OBJECT_STORES, S3, WEB, protocol

VERSION_FIELDS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
TIME_FIELDS = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
ATTEMPTS = 6
"""Attempts at one S3 request. The waits before the 2nd to 6th are random, at most 1, 2, 4, 8 and 16 s."""
WEB_TIMEOUT_S, WEB_SILENCE_S = 300.0, 30.0
"""Timeouts of one request to a web server: in total, and without any byte."""
BODY_ATTEMPTS = 3
"""Attempts at reading the body of a response. botocore retries requests, but not reading their bodies."""


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URI and the path inside it.

    `fsspec.core.url_to_fs` is not used because it would take `::` in a file name for a chain of file systems.

    Raises:
        ValueError: the protocol is unknown or has no installed driver.
    """
    kind = protocol(uri)
    found = driver(kind)
    try:
        options = {**found._get_kwargs_from_urls(uri), **_options(kind)}
        return fsspec.filesystem(kind, **options), cast(str, found._strip_protocol(uri))
    except ImportError as error:
        raise ValueError(f"{uri!r} needs a storage driver that is not installed: {error}") from error


def driver(kind: str) -> type[fsspec.AbstractFileSystem]:
    """Return the driver of a protocol. Raises ValueError if it is unknown or not installed."""
    try:
        return fsspec.get_filesystem_class(kind)
    except ImportError as error:
        raise ValueError(f"{kind}:// needs a storage driver that is not installed: {error}") from error


def iter_files(root: str) -> Iterator[FileInfo]:
    """Yield the files below a place, or the file at it, in the store's order."""
    found = _s3_files(root) if protocol(root) in S3 else _found_files(root)
    yield from (info for info in found if not is_temporary(info.uri))


def glob_files(pattern: str) -> list[tuple[str, FileInfo | None]]:
    """Return (URI, file or None for a folder) of what matches, sorted."""
    fs, path = filesystem(pattern)
    fs.invalidate_cache()
    with explained(pattern, "list"):
        found = cast(dict[str, dict[str, Any]], fs.glob(path, detail=True))
    entries = (
        (_uri(fs, pattern, name), file_info(fs, pattern, info) if info["type"] == "file" else None)
        for name, info in found.items()
        if not is_temporary(name)
    )
    return sorted(entries, key=lambda entry: entry[0])


def stat(uri: str) -> FileInfo | None:
    """Return the file at a URI, or None if nothing or a folder is there."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    try:
        with explained(uri, "read"):
            info = _s3_object(fs, path) if protocol(uri) in S3 else fs.info(path)
    except FileNotFoundError:
        return None
    return file_info(fs, uri, info) if info["type"] == "file" else None


def read_bytes(uri: str, limit_bytes: int | None) -> bytes:
    """Read a file with one request: a range if there is a limit, and otherwise without s3fs's request for the size."""
    fs, path = filesystem(uri)
    if protocol(uri) in S3 and "?versionId=" in path:
        return read_version(uri, limit_bytes)[0]
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


def read_version(uri: str, limit_bytes: int | None) -> tuple[bytes, str]:
    """Read an object on S3 and its fingerprint with one request."""
    fs, path = filesystem(uri)
    bucket, key = _s3_place(fs, path)
    span = {} if limit_bytes is None else {"Range": f"bytes=0-{limit_bytes}"}
    try:
        content, answer = _get(fs, uri, Bucket=bucket, Key=key, **span)
    except StorageError as error:
        if error.kind != "range":  # an empty object has no byte 0
            raise
        found = stat(uri)
        return b"", "" if found is None else found.fingerprint
    size_bytes = answer["ContentRange"].rpartition("/")[2] if "ContentRange" in answer else answer["ContentLength"]
    return content, file_info(fs, uri, {"name": path, "size": size_bytes, "ETag": answer["ETag"]}).fingerprint


def has_version(details: Mapping[str, Any]) -> bool:
    """Return whether a driver's description of a file contains its version."""
    return any(details.get(name) for name in VERSION_FIELDS)


def file_info(fs: fsspec.AbstractFileSystem, like: str, info: Mapping[str, Any]) -> FileInfo:
    """Convert a driver's description of a file; its URI is spelled as `like` is."""
    version = next((info[field] for field in VERSION_FIELDS if info.get(field)), "")
    if isinstance(version, datetime):  # some drivers format times differently in listings and in answers for one file
        version = version.timestamp()
    if (
        isinstance(version, str) and protocol(like) not in S3
    ):  # adlfs puts quotes around an etag only in answers for one file
        version = version.strip('"')
    size_bytes = int(info["size"] or 0)
    return FileInfo(
        uri=_uri(fs, like, info["name"]),
        size_bytes=size_bytes,
        fingerprint=short_hash(str(size_bytes), str(version)),
        modified_s=_seconds(next((info[field] for field in TIME_FIELDS if info.get(field)), None)),
    )


def _get(fs: Any, uri: str, **request: str) -> tuple[bytes, Mapping[str, Any]]:
    """Return the body and the fields of the response to a GET."""
    for attempt in range(1, BODY_ATTEMPTS + 1):
        with explained(uri, "read"):
            answer = fs.call_s3("get_object", **request)
        try:
            with explained(uri, "read"):
                return cast(bytes, fsspec.asyn.sync(fs.loop, answer["Body"].read)), answer
        except StorageError as error:
            if error.kind != "unreachable" or attempt == BODY_ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def _options(kind: str) -> dict[str, Any]:
    """Return options: retries for S3 unless the user's environment or configuration sets them, and no listing cache."""
    if kind in WEB:
        return {"client_kwargs": {"timeout": _web_timeout()}, **fsspec.config.conf.get(kind, {})}
    if kind not in S3:
        return {}
    retries: dict[str, Any] = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    chosen = {} if {"AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"} & os.environ.keys() else {"retries": retries}
    for name in sorted(S3):
        chosen |= fsspec.config.conf.get(name, {}).get("config_kwargs", {})
    return {"config_kwargs": chosen, "use_listings_cache": False}


def _web_timeout() -> Any:
    """Limit how long a silent host delays a chunk. aiohttp's own limit is 5 minutes per file."""
    from aiohttp import ClientTimeout

    return ClientTimeout(total=WEB_TIMEOUT_S, sock_connect=WEB_SILENCE_S, sock_read=WEB_SILENCE_S)


def _found_files(root: str) -> Iterator[FileInfo]:
    fs, path = filesystem(root)
    fs.invalidate_cache()
    with explained(root, "list"):
        found = fs.find(path, detail=True)
    return (file_info(fs, root, info) for info in found.values())


def _s3_files(root: str) -> Iterator[FileInfo]:
    fs, path = filesystem(root)
    bucket, key = _s3_place(fs, path)
    place: dict[str, str] = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else ""}
    is_empty = True
    while True:
        with explained(root, "list"):
            page = fs.call_s3("list_objects_v2", **place)
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):  # consoles create these to show an empty folder
                is_empty = False
                info = {"size": entry["Size"], "ETag": entry.get("ETag"), "name": f"{bucket}/{entry['Key']}"}
                yield file_info(fs, root, {**info, "modified": entry.get("LastModified")})
        if not page.get("IsTruncated"):
            break
        place["ContinuationToken"] = page["NextContinuationToken"]
    if is_empty and key and (file := stat(root)) is not None:
        yield file


def _s3_place(fs: Any, path: str) -> tuple[str, str]:
    """Return (bucket, key). `split_path` cuts off what follows `?versionId=`, which may be a part of a key."""
    bucket, key, _ = fs.split_path(path)
    return bucket, path.removeprefix(bucket)[1:] if "?versionId=" in path else key


def _s3_object(fs: Any, path: str) -> dict[str, Any]:
    """Return what `fs.info` returns for an object, without its second request, which looks for a folder."""
    bucket, key = _s3_place(fs, path)
    if not key:
        return fs.info(path)
    found = fs.call_s3("head_object", fs.kwargs, Bucket=bucket, Key=key)
    kept = {name: found.get(name) for name in ("ETag", "LastModified")}
    return {"name": path, "type": "file", "size": found["ContentLength"], **kept}


def _uri(fs: fsspec.AbstractFileSystem, like: str, path: str) -> str:
    """Return the URI of a path of the file system, spelled as `like` is."""
    scheme = protocol(like)
    if scheme == "file":
        return path
    return f"{scheme}://{path.lstrip('/')}" if scheme in OBJECT_STORES else fs.unstrip_protocol(path)


def _seconds(time: Any) -> float | None:
    """Convert a driver's time to seconds since 1970; a time without a zone is in UTC."""
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return None if time is None else float(time)
