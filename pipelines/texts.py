"""Text for people: messages on stderr, and foreign text that is safe to print."""

import sys

FOREIGN_CHARS = 200
"""Of text that is not ours, in a message."""


def printable(text: str) -> str:
    r"""Text that can be stored as UTF-8: bytes that were no text in a file's name are written as `\xff`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _is_file_name(text) else "replace").decode(
            "utf-8", "backslashreplace"
        )
    return text


def clipped(text: str, limit_chars: int = FOREIGN_CHARS) -> str:
    r"""Text that is not ours, for a message: on one line, controls as `\x1b`, at most `limit_chars` letters."""
    text = " ".join(printable(text[: 10 * limit_chars]).split())
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)
    return text if len(text) <= limit_chars else f"{text[: limit_chars - 3]}..."


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _is_file_name(text: str) -> bool:
    """Whether its surrogates are those Python puts into the names of files, and no halves of JSON's pairs."""
    return all(not 0xD800 <= ord(letter) <= 0xDFFF or 0xDC80 <= ord(letter) <= 0xDCFF for letter in text)


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(text, file=sys.stderr, flush=True)
