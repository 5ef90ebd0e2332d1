"""Pictures that a row names instead of holding: fetched several at a time, in order, in bounded memory."""

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
from pipelines.damage import is_damage, reason_of
from pipelines.errors import PassingError, SampleError, ShardChangedError
from pipelines.samples import Stored
from pipelines.storage.errors import StorageError, is_unreachable, redacted
from pipelines.storage.store import FILES, Store
from pipelines.storage.uris import WEB
from pipelines.texts import clipped

FETCHES_AT_ONCE = 8
MAX_FILE_BYTES = 128 << 20
"""A larger file is no picture we can use: it becomes an error row before it is in memory."""
SHOWN_CHARS = 150
"""Of a URI in a reason, which shall fit on a line."""
URI_FIELDS = ("image", "url", "uri", "image_url", "image_uri", "image_path", "path", "file_name")
"""Where a row without bytes is expected to name its picture."""

ERRNOS_OF_A_NAME = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
    errno.EINVAL,
)
"""What a disk says when nothing is wrong but the name."""
KINDS_OF_EVERYBODY = ("credentials", "region")
"""Of StorageError: no row's own trouble."""
HOSTS = WEB | {"ftp", "sftp", "ssh", "hdfs", "webhdfs", "smb"}
"""Schemes of addresses that name the host which has the file; of others one service has all files."""
WAITS_S = (0.5, 1.5)
"""Before the 2nd and 3rd attempt at an address of the web, at most; object stores are asked again by their drivers."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item], store: Store = FILES) -> Iterator[Result]:
    """`map(read, items)` in FETCHES_AT_ONCE threads, if the store allows; no more results than that wait at a time."""
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
    paths: Iterable[str], read: Callable[[str], Stored], problem: SampleError | None
) -> tuple[dict[str, Stored], SampleError | None]:
    """The pictures of a row by path, up to the first that cannot be had, and its problem; none where there was one."""
    pictures: dict[str, Stored] = {}
    for path in dict.fromkeys(paths):
        if problem is not None:
            break
        try:
            pictures[path] = read(path)
        except SampleError as error:
            problem = error
        except Exception as error:
            if not is_damage(error):
                raise
            problem = SampleError("read", f"{clipped(path) or 'the image'} cannot be read: {reason_of(error)}")
    return pictures, problem


def fetch(uri: str, store: Store = FILES) -> Stored:
    """The file at a URI that a row gave.

    Raises:
        SampleError: there is none, it may not be read, it is too large, or the URI is none: the row's own trouble.
        PassingError: a server or a disk does not give it for now, or not with these credentials.
        ShardChangedError: the file is another one than was planned.
    """
    for wait_s in (*WAITS_S, None) if storage.protocol(uri) in WEB else (None,):
        try:
            content = _content(uri, store)
        except PassingError:
            if wait_s is None:
                raise
            time.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311
        else:
            return Stored(content, _name(uri))
    raise AssertionError("the last attempt returns or raises")


def _content(uri: str, store: Store) -> bytes:
    """One attempt, at the URI as it is spelled, then at its other spellings."""
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
        except Exception as error:  # drivers of storage that a row names raise anything at URIs that are none
            raise _of_driver(error, uri) from error
    raise SampleError("read", f"cannot read {clipped(redacted(uri), SHOWN_CHARS)}: there is nothing")


def _of_storage(error: StorageError, uri: str) -> SampleError:
    """What a storage's failure is for one row."""
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
    """What another exception is for one row: of a disk, of a driver that is not installed, or of one that is odd."""
    reason = f"{clipped(redacted(uri), SHOWN_CHARS)}: {type(error).__name__}"
    is_local = storage.protocol(uri) == "file"
    has_number = isinstance(error, OSError) and error.errno not in (None, *ERRNOS_OF_A_NAME)
    if has_number or (not is_local and is_unreachable(error)):
        number = error.errno if isinstance(error, OSError) else None
        shown = f": {os.strerror(number)}" if number else ""
        return PassingError(
            f"cannot be fetched for now ({reason}{shown})", is_shared=storage.protocol(uri) not in HOSTS
        )
    if isinstance(error, ValueError) and not is_local:  # no such driver, say
        reason = f"{clipped(redacted(uri), 90)}: {clipped(redacted(str(error)), 90)}"
    return SampleError("read", f"cannot read {reason}")


def _other_spellings(uri: str) -> Iterator[str]:
    """Of a name that some programs write in another Unicode form, or with %20 for a space."""
    if storage.protocol(uri) in WEB or (uri.isascii() and "%" not in uri):
        return
    candidates = (unicodedata.normalize("NFC", uri), unicodedata.normalize("NFD", uri), unquote(uri))
    yield from (each for each in dict.fromkeys(candidates) if each != uri)


def _name(uri: str) -> str:
    """The file's name; on the web without the query."""
    return (uri.split("?", 1)[0] if storage.protocol(uri) in WEB else uri).rsplit("/", 1)[-1]
