"""Values inside nested rows, and foreign text in messages."""

from typing import Any

KEY_FIELDS = ("key", "__key__")


CAPTION_FIELDS = ("caption", "text", "prompt")
"""What is a caption is decided in `pipelines.readers.captions`."""


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
