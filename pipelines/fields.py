"""Values inside nested rows, and foreign text in messages."""

from typing import Any

FOREIGN_CHARS = 200
"""Of text that is not ours, in a message."""
KEY_FIELDS = ("key", "__key__")
CAPTION_FIELDS = ("caption", "text", "prompt")
"""What is a caption is decided in `pipelines.captions`."""


def lookup(row: Any, path: str) -> Any:
    """The value at `path` in a row of dictionaries and lists; None where there is none.

    `a.b` is field `b` of `a`, `a.0` the first element of list `a`. A field whose own name has dots wins.
    """
    if isinstance(row, dict) and path in row:
        return row[path]
    first, _, rest = path.partition(".")
    if isinstance(row, dict):
        value = row.get(first)
    elif isinstance(row, list):
        value = row[int(first)] if first.isdecimal() and int(first) < len(row) else None
    else:
        return None
    return lookup(value, rest) if rest else value


def place_of(uri: str) -> tuple[str, str]:
    """(folder, name without its last extension) of a file."""
    folder, _, name = uri.rpartition("/")
    return folder, name.rsplit(".", 1)[0]


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
