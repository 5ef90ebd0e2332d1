"""Text files of any encoding: Unicode by its marks, else what is clear, and nothing that is a guess."""

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
"""What no text in Windows-1252 has; other encodings of one byte a letter look like it."""


class DecodedText(NamedTuple):
    """The text in some bytes."""

    text: str
    note: str = ""
    """Why the text is not what is stored, or why there is none although something is stored; else empty."""


def decode_text(content: bytes) -> DecodedText:
    """The text in a file, without white space around it: UTF-8, UTF-16 or UTF-32, else Windows-1252 if it is clear.

    NUL characters are left out. UTF-8 with a few damaged characters has replacement characters, and a note.
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
    """The Unicode encoding that the beginning of a text shows; None where it may be UTF-8 without a mark, or none."""
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    return marked or _utf_16_without_mark(content)


def _stripped(text: str) -> str:
    return text.replace("\0", "").strip("\ufeff \t\r\n")


def _utf_16_without_mark(content: bytes) -> str | None:
    """UTF-16 where at least half of the letters have an upper half of zero, and no lower half is zero."""
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
