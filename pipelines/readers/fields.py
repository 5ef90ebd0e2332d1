"""Values inside nested rows, the usual names of fields, and the parts of a file's URI.

Tested in tests/pipelines/readers/test_json_lines.py and test_parquet.py.
"""

from collections.abc import Sequence
from typing import Any

KEY_FIELDS = ("key", "__key__")
CAPTION_FIELDS = ("caption", "text", "prompt")
"""Fields whose values may be captions, by the rule in `pipelines.readers.captions`."""


def lookup(row: Any, path: str) -> Any:
    """Return the value at `path` in a row of dictionaries and lists, or None.

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


def found_fields(row: Any, paths: Sequence[str]) -> dict[str, Any]:
    """Return the values at those paths that a row has."""
    values = {path: lookup(row, path) for path in paths}
    return {path: value for path, value in values.items() if value is not None}


def place_of(uri: str) -> tuple[str, str]:
    """Split the URI of a file into (folder, name without its last extension)."""
    folder, _, name = uri.rpartition("/")
    return folder, name.rsplit(".", 1)[0]
