"""Samples from rows of values, for Parquet and JSON alike. A bad value affects only its own row.

Tested in tests/pipelines/readers/test_odd_values.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines import storage
from pipelines.errors import SampleError, printable
from pipelines.readers.captions import Caption
from pipelines.readers.inline_images import inline_image
from pipelines.readers.parquet_values import key_text
from pipelines.readers.references import MAX_FILE_BYTES, fetch, gather
from pipelines.samples import EncodedImage, Sample
from pipelines.storage.damage import is_damage, reason_of
from pipelines.storage.store import Store


def named(value: Any, what: str, absent: str = "is null") -> tuple[str | None, SampleError | None]:
    """Return (key, None), or (None, why the value of `what` is not a key). A SampleError as value is that reason."""
    if isinstance(value, SampleError):
        return None, value
    try:
        key = key_text(value)
    except Exception as error:  # a number with thousands of digits, objects that are nested too deeply, ...
        if not is_damage(error):
            raise
        return None, SampleError("read", f"{what} is not a key: {reason_of(error)}")
    return (None, SampleError("read", f"{what} {absent}")) if key is None else (key, None)


def assembled(
    position: int,
    key: str,
    paths: Sequence[str],
    read: Callable[[str], EncodedImage],
    caption: Callable[[], Caption],
    problem: SampleError | None,
    fields: Mapping[str, Any],
) -> Sample:
    """Build the sample of a row from its caption and its images by path, of which the first is the sample's image."""
    images, problem = gather(paths, read, problem)
    image = images.get(paths[0], EncodedImage(b"", ""))
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
        media={path: images[path] for path in paths[1:] if path in images},
        fields={path: value for path, value in fields.items() if not isinstance(value, SampleError)},
        problem=problem,
    )


def read_named(text: str, folder: str, store: Store) -> EncodedImage:
    """Return the image that a text contains or names by a URI, which may be relative to a folder.

    Raises:
        SampleError: see `inline_image` and `references.fetch`.
    """
    content = inline_image(text)
    if content is None:
        return fetch(storage.resolve(text.strip(), folder), store)
    if len(content) > MAX_FILE_BYTES:
        raise SampleError("read", f"the image is larger than {MAX_FILE_BYTES} bytes")
    return EncodedImage(content, "")
