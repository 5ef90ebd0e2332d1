"""Patterns in inputs: braces, wildcards, and names that only look like patterns.

Tested in tests/pipelines/readers/test_shards.py and test_places.py.
"""

import re

from pipelines.errors import SettingError
from pipelines.storage.store import Store
from pipelines.storage.uris import protocol

MAX_NAMES = 1_000_000
"""Maximum number of names that braces may stand for."""
MAGIC = re.compile(r"[*?\[{]")
"""The characters that make a path a pattern."""
WILDCARD = re.compile(r"[*?\[]")
"""Those of them that a listing has to resolve."""


def expand_braces(text: str) -> list[str]:
    """Expand `a{0..2}b` to a0b, a1b, a2b and `{x,y}` to x, y, as in WebDataset's shard ranges. Keeps leading zeros.

    Raises:
        SettingError: there would be more than MAX_NAMES names, probably by a typing error.
    """
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", text)
    if match is None:
        return [text]
    first, last, words = match.groups()
    if words is not None:
        choices = words.split(",")
    else:
        step = 1 if int(first) <= int(last) else -1
        has_zeros = any(end.startswith("0") and len(end) > 1 for end in (first, last))
        digits = max(len(first), len(last)) if has_zeros else 0
        if abs(int(last) - int(first)) >= MAX_NAMES:
            raise SettingError(f"{match[0][:60]} stands for more than {MAX_NAMES:,} names. Correct the range.")
        choices = [str(number).zfill(digits) for number in range(int(first), int(last) + step, step)]
    rests = expand_braces(text[match.end() :])
    if len(choices) * len(rests) > MAX_NAMES:
        raise SettingError(f"{text[:150]!r} stands for more than {MAX_NAMES:,} names. Correct the ranges.")
    return [text[: match.start()] + choice + rest for choice in choices for rest in rests]


def literal_head(uri: str, store: Store) -> tuple[str, str]:
    """Split a URI into the leading folders that exist although their names look like patterns, and the rest."""
    head, at = "", uri.find("://") + 3 if protocol(uri) != "file" else 0
    while (slash := uri.find("/", at)) >= 0:
        part = uri[at:slash]
        if MAGIC.search(part):
            if not store.exists(uri[:slash]):
                break
            head = uri[:slash]
        elif head:
            head = uri[:slash]
        at = slash + 1
    return head, uri[len(head) :]


def escaped(path: str) -> str:
    """Return the pattern that matches only this path."""
    return WILDCARD.sub(lambda match: f"[{match[0]}]", path)
