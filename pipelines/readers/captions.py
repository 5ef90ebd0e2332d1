"""What counts as a caption in every format: one rule for texts, lists, bytes and other values.

A text is used as it is, a list stands for its first text that is not empty, and bytes are decoded. Anything else is not
a caption, which a note says: the row keeps its image, and a job that needs a prompt refuses it.
"""

import json
import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from pipelines.errors import clipped, printable
from pipelines.readers.fields import CAPTION_FIELDS, found_fields, lookup
from unicon import texts


class Caption(NamedTuple):
    """The text that belongs to an image."""

    text: str = ""
    note: str = ""
    """Why the text differs from the stored value, or why there is none although a value is stored; otherwise empty."""


def caption_from(value: Any) -> Caption:
    """Return the caption in a stored value of any type. None, NaN and empty lists give none, without a note."""
    if isinstance(value, str):
        return _printed(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return decode_text(bytes(value))
    if isinstance(value, (list, tuple)):
        return first_usable(caption_from(item) for item in value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Caption()
    kind = {dict: "an object", bool: "a boolean", int: "a number", float: "a number"}.get(
        type(value), f"of type {type(value).__name__}"
    )
    return Caption("", f"not a caption but {kind}: {clipped(repr(value))}")


def chosen_caption(value: Any) -> Caption:
    """Return the caption in a column or field that the user named, where numbers (such as labels) count too."""
    is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
    return Caption(str(value)) if is_number and math.isfinite(value) else caption_from(value)


def caption_of(fields: Any, wanted: str | None) -> Caption:
    """Return the caption in a parsed JSON value: the wanted field, or the first of CAPTION_FIELDS that holds a text.

    If none of these exists, one in capitals (`TEXT`) counts. A value that is not an object is itself the caption if no
    field is wanted.
    """
    if wanted is not None:
        return _named(chosen_caption(lookup(fields, wanted)), wanted)
    if not isinstance(fields, dict):
        return caption_from(fields)
    names = [name for name in CAPTION_FIELDS if name in fields]
    if not names:
        spelled = {name.lower(): name for name in reversed(fields)}
        names = [spelled[name] for name in CAPTION_FIELDS if name in spelled]
    return first_usable(_named(caption_from(fields[name]), name) for name in names)


def json_caption(content: bytes, wanted: str | None) -> Caption:
    """Return the caption in the content of a JSON file; see `caption_of`."""
    text, note = decode_text(content)
    if not text:
        return Caption("", note)
    try:
        found = caption_of(json.loads(text), wanted)
    except (ValueError, RecursionError) as error:
        return Caption("", f"not JSON: {clipped(str(error))}")
    return Caption(found.text, found.note or note)


def json_fields(content: bytes, names: Sequence[str]) -> dict[str, Any]:
    """Return those of the named fields that the content of a JSON file has; nothing if it is no JSON."""
    try:
        return found_fields(json.loads(decode_text(content).text), names)
    except (ValueError, RecursionError):
        return {}


def has_field(text: str, wanted: str) -> bool:
    """Return whether a JSON text has a field, even a null one; a path into a null field counts too."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return lookup(fields, wanted) is not None or (isinstance(fields, dict) and wanted.split(".", 1)[0] in fields)


def first_usable(captions: Iterable[Caption]) -> Caption:
    """Return the first caption that has a text, with the first note of it and those before it."""
    first_note = ""
    for text, note in captions:
        first_note = first_note or note
        if text.strip():
            return Caption(text, first_note)
    return Caption("", first_note)


def fallback(usual: Caption, wanted: str) -> Caption:
    """Return the caption by the usual rule for a sample that lacks the requested one, with a note."""
    missing = f"there is no {clipped(wanted)}, neither as a file nor as a field"
    return Caption(usual.text, usual.note or missing) if usual.text else usual


def decode_text(content: bytes) -> Caption:
    """Decode the text of a file; see `unicon.texts`."""
    return Caption(*texts.decode_text(content))


def _printed(text: str) -> Caption:
    if any("\udc80" <= letter <= "\udcff" for letter in text):  # bytes that were not UTF-8, as Python represents them
        return decode_text(text.encode("utf-8", "surrogateescape" if _is_escaped(text) else "replace"))
    shown = printable(text)
    return Caption(shown, "" if shown == text else "characters that are not Unicode were replaced")


def _is_escaped(text: str) -> bool:
    """Return whether all surrogates stand for bytes that were not UTF-8, rather than being halves of JSON's pairs."""
    return all(not 0xD800 <= ord(letter) <= 0xDFFF or 0xDC80 <= ord(letter) <= 0xDCFF for letter in text)


def _named(caption: Caption, name: str) -> Caption:
    return Caption(caption.text, f"{name}: {caption.note}" if caption.note else "")
