"""Samples from rows of values, of Parquet and JSON alike: whatever a value is, it concerns its own row alone."""

from collections.abc import Callable, Sequence
from typing import Any

from pipelines import storage
from pipelines.damage import is_damage, reason_of
from pipelines.errors import SampleError
from pipelines.readers.captions import Caption
from pipelines.readers.inline_images import inline_image
from pipelines.readers.parquet_values import key_text
from pipelines.readers.references import MAX_FILE_BYTES, fetch, gather
from pipelines.samples import Sample, Stored
from pipelines.storage.store import Store
from pipelines.texts import printable


def named(value: Any, what: str, absent: str = "is null") -> tuple[str | None, SampleError | None]:
    """(key, None), or (None, why the value of `what` is none); a SampleError as value is the reason itself."""
    if isinstance(value, SampleError):
        return None, value
    try:
        key = key_text(value)
    except Exception as error:  # a number of thousands of digits, objects too deep within each other, ...
        if not is_damage(error):
            raise
        return None, SampleError("read", f"{what} is no key: {reason_of(error)}")
    return (None, SampleError("read", f"{what} {absent}")) if key is None else (key, None)


def assembled(
    position: int,
    key: str,
    paths: Sequence[str],
    read: Callable[[str], Stored],
    caption: Callable[[], Caption],
    problem: SampleError | None,
) -> Sample:
    """The sample of a row: its pictures by path, the image being the first, and its caption."""
    pictures, problem = gather(paths, read, problem)
    image = pictures.get(paths[0], Stored(b"", ""))
    try:
        text, note = caption()
    except SampleError as error:
        text, note = Caption("", error.reason)
    except Exception as error:
        if not is_damage(error):
            raise
        text, note = Caption("", f"not a caption: {reason_of(error)}")
    return Sample(
        position=position,
        key=key,
        image=image.content,
        image_name=printable(image.name),
        caption=text,
        caption_note=note,
        media={path: pictures[path] for path in paths[1:] if path in pictures},
        problem=problem,
    )


def read_named(text: str, folder: str, store: Store) -> Stored:
    """The image that a text is, or names: a URI, relative ones to a folder.

    Raises:
        SampleError: see `inline_image` and `references.fetch`.
    """
    content = inline_image(text)
    if content is None:
        return fetch(storage.resolve(text.strip(), folder), store)
    if len(content) > MAX_FILE_BYTES:
        raise SampleError("read", f"the image is larger than {MAX_FILE_BYTES} bytes")
    return Stored(content, "")
