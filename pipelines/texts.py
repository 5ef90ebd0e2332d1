"""Messages on stderr, and making text of unknown origin safe to print.

Tested in tests/pipelines/readers/test_damage.py and test_captions.py.
"""

import sys

FOREIGN_CHARS = 200
"""Maximum number of characters of foreign text in a message."""


def printable(text: str) -> str:
    r"""Make text encodable as UTF-8: undecodable bytes of file names are written as `\xff`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _is_file_name(text) else "replace").decode(
            "utf-8", "backslashreplace"
        )
    return text


def clipped(text: str, limit_chars: int = FOREIGN_CHARS) -> str:
    r"""Shorten foreign text for a message to one line of `limit_chars` characters, with controls as `\x1b`."""
    text = " ".join(printable(text[: 10 * limit_chars]).split())
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)
    return text if len(text) <= limit_chars else f"{text[: limit_chars - 3]}..."


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _is_file_name(text: str) -> bool:
    """Return whether all surrogates are those of Python's file names, rather than halves of JSON's pairs."""
    return all(not 0xD800 <= ord(letter) <= 0xDFFF or 0xDC80 <= ord(letter) <= 0xDCFF for letter in text)


def say(text: str) -> None:
    """Print one line for the user at the terminal."""
    print(text, file=sys.stderr, flush=True)
