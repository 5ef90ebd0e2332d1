"""Fetching of images that a row names instead of storing: several at a time, in order, in bounded memory.

Tested in tests/pipelines/readers/test_json_lines.py, test_odd_values.py and tests/pipelines/runs/test_waiting.py.
"""

import errno
import os
import random
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import unquote

from pipelines import storage
from pipelines.errors import PassingError, SampleError, ShardChangedError, clipped
from pipelines.samples import EncodedImage
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.errors import StorageError, is_unreachable, redacted
from pipelines.storage.store import FILES, Store
from pipelines.storage.uris import WEB

FETCHES_AT_ONCE = 8
MAX_FILE_BYTES = 128 << 20
"""A larger file becomes an error row before it is in memory."""
SHOWN_CHARS = 150
"""Number of characters of a URI that are shown in a reason, which should fit on a line."""
URI_FIELDS = ("image", "url", "uri", "image_url", "image_uri", "image_path", "path", "file_name")
"""Fields in which a row without bytes may name its image."""

ERRNOS_OF_A_NAME = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
    errno.EINVAL,
)
"""The errors of a disk at which only the name is wrong."""
KINDS_OF_EVERYBODY = ("credentials", "region")
"""Kinds of StorageError that are not the fault of a single row."""
HOSTS = WEB | {"ftp", "sftp", "ssh", "hdfs", "webhdfs", "smb"}
"""Schemes whose URIs name the host of the file; for other schemes, one service has all files."""
WAITS_S = (0.5, 1.5)
"""Maximum waits before the 2nd and 3rd attempt at a web address. The drivers of object stores retry by themselves."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], store: Store = FILES) -> Iterator[Result]:
    """Yield `map(read, items)` from FETCHES_AT_ONCE threads if the store allows. At most that many results wait."""
    if not store.is_concurrent:
        yield from map(read, items)
        return
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > FETCHES_AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def gather(
    paths: Iterable[str], read: Callable[[str], EncodedImage], problem: SampleError | None
) -> tuple[dict[str, EncodedImage], SampleError | None]:
    """Return the images of a row by path, up to the first with a problem, and the problem.

    If the row already has a problem, no image is read.
    """
    images: dict[str, EncodedImage] = {}
    for path in dict.fromkeys(paths):
        if problem is not None:
            break
        try:
            images[path] = read(path)
        except SampleError as error:
            problem = error
        except Exception as error:
            if not is_damage(error):
                raise
            problem = SampleError("read", f"{clipped(path) or 'the image'} cannot be read: {reason_of(error)}")
    return images, problem


def fetch(uri: str, store: Store = FILES) -> EncodedImage:
    """Read the file at a URI that a row names.

    Raises:
        SampleError: the row is at fault: there is no such file, it must not be read, it is too large, or the URI is
            invalid.
        PassingError: a server or a disk does not return it for now, or not with these credentials.
        ShardChangedError: the file is not the one that was planned.
    """
    for wait_s in (*WAITS_S, None) if storage.protocol(uri) in WEB else (None,):
        try:
            content = _content(uri, store)
        except PassingError:
            if wait_s is None:
                raise
            time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311
        else:
            return EncodedImage(content, _name(uri))
    raise AssertionError("the last attempt returns or raises")


def _content(uri: str, store: Store) -> bytes:
    """Make one attempt at the URI as it is spelled, then at its other spellings."""
    for spelling in (uri, *_other_spellings(uri)):
        try:
            return store.read_bytes(spelling, MAX_FILE_BYTES)
        except FileNotFoundError:
            continue
        except ShardChangedError:
            raise
        except storage.TooLargeError as error:
            raise SampleError("read", f"the image file is larger than {MAX_FILE_BYTES} bytes") from error
        except StorageError as error:
            raise _of_storage(error, uri) from error
        except Exception as error:  # storage drivers raise any exception at invalid URIs
            raise _of_driver(error, uri) from error
    raise SampleError("read", f"cannot read {clipped(redacted(uri), SHOWN_CHARS)}: there is nothing")


def _of_storage(error: StorageError, uri: str) -> SampleError:
    """Return the error of one row for a failure of a storage."""
    if error.kind in KINDS_OF_EVERYBODY and storage.protocol(uri) not in WEB:
        reason = f"cannot be fetched with the credentials that are there: {clipped(str(error))}"
        return PassingError(reason, is_shared=True)
    is_passing = error.kind == "unreachable" or (error.kind == "other" and storage.protocol(uri) not in WEB)
    if not is_passing:
        return SampleError("read", clipped(str(error)))
    cause = error.__cause__ or error
    detail = redacted(f"{type(cause).__name__}: {cause}".strip(": "))
    return PassingError(
        f"cannot be fetched for now ({clipped(redacted(uri), 90)}: {clipped(detail, 70)})",
        is_shared=storage.protocol(uri) not in HOSTS,
    )


def _of_driver(error: Exception, uri: str) -> SampleError:
    """Return the error of one row for any other exception of a disk or of a missing or unusual driver."""
    reason = f"{clipped(redacted(uri), SHOWN_CHARS)}: {type(error).__name__}"
    is_local = storage.protocol(uri) == "file"
    has_number = isinstance(error, OSError) and error.errno not in (None, *ERRNOS_OF_A_NAME)
    if has_number or (not is_local and is_unreachable(error)):
        number = error.errno if isinstance(error, OSError) else None
        shown = f": {os.strerror(number)}" if number else ""
        return PassingError(
            f"cannot be fetched for now ({reason}{shown})", is_shared=storage.protocol(uri) not in HOSTS
        )
    if isinstance(error, ValueError) and not is_local:  # such as a missing driver
        reason = f"{clipped(redacted(uri), 90)}: {clipped(redacted(str(error)), 90)}"
    return SampleError("read", f"cannot read {reason}")


def _other_spellings(uri: str) -> Iterator[str]:
    """Yield spellings in other Unicode forms, and with spaces for %20, because some programs write such names."""
    if storage.protocol(uri) in WEB or (uri.isascii() and "%" not in uri):
        return
    candidates = (unicodedata.normalize("NFC", uri), unicodedata.normalize("NFD", uri), unquote(uri))
    yield from (each for each in dict.fromkeys(candidates) if each != uri)


def _name(uri: str) -> str:
    """Return the file's name; on the web without the query."""
    return (uri.split("?", 1)[0] if storage.protocol(uri) in WEB else uri).rsplit("/", 1)[-1]
