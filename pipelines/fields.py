"""Values inside nested rows, the captions among them, and texts that came as bytes."""

import json
from typing import Any

FOREIGN_CHARS = 200
"""Of text that is not ours, in a message."""
KEY_FIELDS = ("key", "__key__")
CAPTION_FIELDS = ("caption", "text", "prompt")


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


def json_caption(text: str, wanted: str | None) -> str:
    """The wanted field of a JSON object, else the first of CAPTION_FIELDS; empty where the text is no such object."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return caption_of(fields, wanted)


def caption_of(fields: Any, wanted: str | None) -> str:
    """The caption in a parsed object."""
    names = CAPTION_FIELDS if wanted is None else (wanted,)
    values = (lookup(fields, name) for name in names)
    return printable(next((value for value in values if isinstance(value, str)), ""))


def text_of(content: bytes | None) -> str:
    """UTF-8 text, with or without a byte order mark; what is no UTF-8 becomes a replacement character."""
    return (content or b"").decode("utf-8", errors="replace").strip("\ufeff \t\r\n\0")


def printable(text: str) -> str:
    r"""Text that can be stored as UTF-8: bytes that were no text in a file's name are written as `\xff`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _is_file_name(text) else "replace").decode(
            "utf-8", "backslashreplace"
        )
    return text


def clipped(text: str) -> str:
    """Text for a message: on one line, printable, at most FOREIGN_CHARS letters."""
    text = " ".join(printable(text[: 10 * FOREIGN_CHARS]).split())
    return text if len(text) <= FOREIGN_CHARS else f"{text[: FOREIGN_CHARS - 3]}..."


def _is_file_name(text: str) -> bool:
    """Whether its surrogates are those Python puts into the names of files, and no halves of JSON's pairs."""
    return all(not 0xD800 <= ord(letter) <= 0xDFFF or 0xDC80 <= ord(letter) <= 0xDCFF for letter in text)
