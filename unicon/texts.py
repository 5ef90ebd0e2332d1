"""Decoding text files of any encoding: Unicode by its byte order mark, else encodings that are certain, never a guess.

Tested in tests/pipelines/readers/test_captions.py.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as the mark of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f]")
_WESTERN = re.compile("[^\x00-\x7fÀ-ÖØ-öø-ÿŒœŠšŽžŸ\xa0«»‘’“”–—…€£¥§©®™°·¿¡¼½¾²³ªº´]")
"""Characters that no text in Windows-1252 has. Other single-byte encodings look like it."""


class DecodedText(NamedTuple):
    """A decoded text."""

    text: str
    note: str = ""
    """Why the text differs from what is stored, or why it is empty although something is stored; else empty."""


def decode_text(content: bytes) -> DecodedText:
    """Decode the content of a text file as UTF-8, UTF-16 or UTF-32, else as Windows-1252 if that is certain.

    Surrounding white space and NUL characters are removed. UTF-8 with a few damaged characters gets replacement
    characters and a note.
    """
    encoding = unicode_encoding(content)
    try:
        return DecodedText(_stripped(content.decode(encoding or "utf-8")))
    except UnicodeDecodeError:
        text = content.decode(encoding or "utf-8", "replace")
    damaged = text.count("\ufffd")
    if encoding or damaged <= sum(letter > "\x7f" for letter in text) - damaged:
        return DecodedText(_stripped(text), f"damaged text: {damaged} characters are not {encoding or 'utf-8'}")
    western = content.decode("windows-1252", "replace")
    if not _is_clearly_western(western):
        return DecodedText("", f"not a text: {len(content)} bytes that are neither UTF-8 nor UTF-16")
    return DecodedText(_stripped(western), "decoded as Windows-1252, since it is not UTF-8")


def unicode_encoding(content: bytes) -> str | None:
    """The Unicode encoding that a text is known to have; None if it may be UTF-8 without a mark, or no Unicode."""
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    return marked or _utf_16_without_mark(content)


def _stripped(text: str) -> str:
    return text.replace("\0", "").strip("\ufeff \t\r\n")


def _utf_16_without_mark(content: bytes) -> str | None:
    """UTF-16 if at least half of the characters have an upper byte of zero and no lower byte is zero."""
    while content[-2:] == b"\0\0":
        content = content[:-2]
    if len(content) % 2 or b"\0" not in content:
        return None
    zeros = content[0::2].count(0), content[1::2].count(0)
    if min(zeros) or max(zeros) * 4 < len(content):
        return None
    encoding = "utf-16-be" if zeros[0] else "utf-16-le"
    text = content.decode(encoding, "replace")
    return None if "\ufffd" in text or _CONTROLS.search(text) else encoding


def _is_clearly_western(text: str) -> bool:
    others = sum(letter > "\x7f" for letter in text)
    ascii_letters = sum(letter.isalpha() for letter in text if letter <= "\x7f")
    return others <= 2 * ascii_letters and "\0" not in text and not _CONTROLS.search(text) and not _WESTERN.search(text)
