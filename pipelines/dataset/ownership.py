"""Files beside the data, whose names a user's files may have, too: what this program did not write is not replaced.

Files of this program contain a mark: a comment at the end of a text, with a hash of the text before it, or a note in a
PNG. A text that was edited belongs to its editor. Files of earlier versions, without a mark, are recognized by their
form.
"""

import io
import os
import re
from collections.abc import Callable

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from pipelines import storage
from pipelines.errors import SettingError
from pipelines.storage.store import FILES, Store

PROGRAM = "unicon-data"
MARK = re.compile(rf"<!-- written by {PROGRAM}, ([0-9a-f]{{16}}):[^\n]*-->\s*\Z")
MAX_BYTES = 64 << 20
"""A larger file is not from this program."""
MARGIN_PX = 8
"""White margin around the images of a preview sheet."""

OLD_CARD = re.compile(
    r"---\npretty_name: [^\n]*\ntask_categories:\n- [^\n]*\nconfigs:\n- config_name: default\n  default: true\n"
    r"  data_files: [^\n]*\n- config_name: errors\n  data_files: errors/\*\.parquet\n---\n\n# [^\n]*\n\n"
    r"\d+ rows in `data/`; \d+ samples that could not be processed are in `errors/` with their reasons\.\n\n"
    r"!\[[^\n]*\]\(preview\.png\)\n\n```python\nimport datasets\n\nrows = [^\n]*\n```\n(?:\nIn each tar [^\n]*\n)?\n"
    r"(?:\|[^\n]*\|\n)+\n## Settings\n\n(?:\|[^\n]*\|\n)+"
)
"""README.md of version 0.1 and of versions without marks; one line more or less makes it a user's file."""
OLD_REPORT = re.compile(
    r'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>.*</body></html>\n', re.DOTALL
)
OLD_SCENES = re.compile(r"# Rendered scenes\n\nWebDataset tars of rooms and yards .*", re.DOTALL)

IsOurs = Callable[[bytes], bool]
Say = Callable[[str], None]


def marked(text: str) -> bytes:
    """Return a text, in Markdown or HTML, with the mark."""
    text = text.rstrip("\n") + "\n"
    note = "the next run replaces this file unless it is edited"
    mark = f"<!-- written by {PROGRAM}, {storage.short_hash(text)}: {note} -->"
    return f"{text}{mark}\n".encode(errors="replace")


def is_our_text(content: bytes) -> bool:
    """Whether a text is unchanged since this program wrote it."""
    text = content.decode("utf-8", "replace").replace("\r\n", "\n")
    if match := MARK.search(text):
        return storage.short_hash(text[: match.start()]) == match[1]
    return any(old.fullmatch(text) for old in (OLD_CARD, OLD_REPORT, OLD_SCENES))


def marked_png(image: Image.Image) -> bytes:
    """Encode an image for people as a PNG with the mark."""
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", PROGRAM)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=note)
    return buffer.getvalue()


def is_our_png(content: bytes) -> bool:
    """Whether an image has the mark, or the form of a preview sheet of earlier versions."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.info.get("Software") == PROGRAM:
                return True
            return image.mode == "RGB" and _is_sheet(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def publish_beside(output: str, name: str, content: bytes, is_ours: IsOurs, say: Say, store: Store = FILES) -> str:
    """Publish a file in an output root, under another name if a user's file has this one; returns the name.

    Returns an empty name if both names are taken.

    Raises:
        OSError: The storage failed.
    """
    for candidate in (name, other_name(name)):
        uri = storage.join(output, candidate)
        if is_replaceable(uri, is_ours, store):
            store.publish(uri, content)
            return candidate
        instead = f"; the new file is {other_name(name)}" if candidate == name else ", and the new one is not written"
        say(f"{uri} was not written by this program, or was edited: it stays as it is{instead}")
    return ""


def other_name(name: str) -> str:
    """`README.md` -> `README-unicon.md`."""
    stem, extension = os.path.splitext(name)
    return f"{stem}-unicon{extension}"


def our_file(output: str, name: str, is_ours: IsOurs, store: Store = FILES) -> bytes:
    """Return the content of a file in an output root, under either name; empty if neither is from this program."""
    for candidate in (name, other_name(name)):
        content = _content(storage.join(output, candidate), store)
        if content and is_ours(content):
            return content
    return b""


def is_replaceable(uri: str, is_ours: IsOurs, store: Store = FILES) -> bool:
    """Whether there is nothing at a URI, or a file of this program."""
    content = _content(uri, store)
    return is_ours(content) if content is not None else not store.exists(uri)


def check_replaceable(option: str, uri: str, is_ours: IsOurs) -> None:
    """Raise SettingError if an option names a file that cannot be written, or that this program did not write."""
    storage.check_place(option, uri)
    storage.check_writable(option, uri)
    if not is_replaceable(storage.normalize(uri), is_ours):
        raise SettingError(
            f"{option} {uri!r}: there is a file or a folder that this program did not write, and it is not replaced. "
            "Use another name, or move it away."
        )


def _content(uri: str, store: Store) -> bytes | None:
    """The content of a file; None if there is none, and empty if it is too large to be from this program."""
    if store.stat(uri) is None:
        return None
    try:
        return store.read_bytes(uri, MAX_BYTES)
    except FileNotFoundError:
        return None
    except storage.TooLargeError:
        return b""


def _is_sheet(image: Image.Image) -> bool:
    """Whether there are white margins at the left and the bottom, exactly as wide as those of preview sheets."""
    width, height = image.size
    if min(width, height) <= 2 * MARGIN_PX:
        return False
    left = image.crop((0, 0, MARGIN_PX, height))
    below = image.crop((0, height - MARGIN_PX, width, height))
    content = image.crop((MARGIN_PX, 0, MARGIN_PX + 1, height))
    is_white = [part.getextrema() == ((255, 255),) * 3 for part in (left, below, content)]
    return is_white == [True, True, False]
