"""Pictures that a row names instead of holding: fetched several at a time, in order, in bounded memory."""

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pipelines import storage
from pipelines.errors import SampleError, ShardChangedError
from pipelines.fields import clipped
from pipelines.samples import Stored
from pipelines.storage_errors import StorageError, redacted
from pipelines.store import FILES, Store

FETCHES_AT_ONCE = 8
MAX_FILE_BYTES = 128 << 20
"""A larger file is no picture we can use: it becomes an error row before it is in memory."""
URI_FIELDS = ("image", "url", "uri", "image_url", "image_uri", "image_path", "path", "file_name")
"""Where a row without bytes is expected to name its picture."""

ERRNOS_OF_A_NAME = (
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP),
    errno.EINVAL,
)
"""What a disk says when nothing is wrong but the name."""
KINDS_OF_A_NAME = ("denied", "bucket", "name")
"""Of StorageError."""
WEB = ("http", "https", "ftp")

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
    return pictures, problem


def fetch(uri: str, store: Store = FILES) -> Stored:
    """The file at a URI that a row gave.

    Raises:
        SampleError: there is none, it may not be read, it is too large, or the URI is none: the row's own trouble. Any
            address of the web that fails counts as that too.
        StorageError: the storage stays away or rejects the credentials: everybody's trouble.
        ShardChangedError: the file is another one than was planned.
    """
    try:
        content = store.read_bytes(uri, MAX_FILE_BYTES)
    except ShardChangedError:
        raise
    except storage.TooLargeError as error:
        raise SampleError("read", f"the image file is larger than {MAX_FILE_BYTES} bytes") from error
    except StorageError as error:
        if error.kind not in KINDS_OF_A_NAME and storage.protocol(uri) not in WEB:
            raise
        raise SampleError("read", clipped(str(error))) from error
    except Exception as error:  # drivers of storage that a row names raise anything at URIs that are none
        is_storage = isinstance(error, OSError) and error.errno not in (None, *ERRNOS_OF_A_NAME)
        if is_storage and storage.protocol(uri) not in WEB:
            raise
        raise SampleError("read", f"cannot read {clipped(redacted(uri))}: {type(error).__name__}") from error
    return Stored(content, uri.split("?", 1)[0].rsplit("/", 1)[-1])
