"""Removing metadata that prevents Pillow from opening an image file whose pixels are intact.

Tested in tests/pipelines/images/test_containers.py.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Container, Iterator
from typing import NamedTuple

JPEG_MAGIC = b"\xff\xd8\xff"
EXIF, PROFILE, ADOBE, COMMENT, SCAN = 0xE1, 0xE2, 0xEE, 0xFE, 0xDA
ADOBE_BYTES = 16
"""Size of the segment that says how colors are stored. A shorter one is meaningless."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
MAX_PROFILE_BYTES = 16 << 20


class Readable(NamedTuple):
    """A file without metadata that does not affect the pixels."""

    content: bytes
    profile: bytes | None = None
    """The color profile, if it was removed from the file."""


def without_metadata(content: bytes) -> Iterator[Readable]:
    """Yield an image file that cannot be opened with less and less of its metadata.

    Pillow refuses a PNG whose texts or profile are damaged or large once decompressed, and a JPEG with segments that
    are too short. Only a profile is decompressed here, up to MAX_PROFILE_BYTES.
    """
    if content.startswith(JPEG_MAGIC):
        yield from _jpegs(content)
    if not content.startswith(PNG_MAGIC):
        return
    chunks = list(_png_chunks(content))
    kinds = {chunk[4:8] for chunk in chunks}
    if kinds & TEXT_CHUNKS:
        yield _png(chunk for chunk in chunks if chunk[4:8] not in TEXT_CHUNKS)
    profile = next((_unpacked_profile(chunk) for chunk in chunks if chunk[4:8] == b"iCCP"), None)
    if profile is not None:
        less = _png(chunk for chunk in chunks if chunk[4:8] not in TEXT_CHUNKS | {b"iCCP"})
        yield less._replace(profile=profile)
    if kinds - PIXEL_CHUNKS:
        yield _png(chunk for chunk in chunks if chunk[4:8] in PIXEL_CHUNKS)


def _jpegs(content: bytes) -> Iterator[Readable]:
    """A JPEG without application segments and comments: first all but EXIF and profile, then the profile, then EXIF."""
    segments, rest = _jpeg_segments(content)
    for kept in ({EXIF, PROFILE}, {EXIF}, set()):
        yield Readable(b"".join((content[:2], *(each for each in segments if _says_pixels(each, kept)), rest)))


def _says_pixels(segment: memoryview, kept: Container[int]) -> bool:
    kind = segment[1]
    if kind == ADOBE and len(segment) >= ADOBE_BYTES:
        return True
    return kind in kept or not (0xE0 <= kind <= 0xEF or kind == COMMENT)


def _jpeg_segments(content: bytes) -> tuple[list[memoryview], memoryview]:
    """(the segments before the pixels, each with its marker and length; the rest of the file)."""
    view = memoryview(content)
    segments = []
    at = 2
    while at + 4 <= len(view) and view[at] == 0xFF and 0xC0 <= view[at + 1] <= 0xFE and view[at + 1] != SCAN:
        end = at + 2 + struct.unpack_from(">H", view, at + 2)[0]
        segments.append(view[at:end])
        at = end
    return segments, view[at:]


def _png(chunks: Iterator[memoryview]) -> Readable:
    return Readable(b"".join((PNG_MAGIC, *chunks)))


def _png_chunks(content: bytes) -> Iterator[memoryview]:
    """Yield every chunk with its length, kind, data and checksum. The last one may be incomplete."""
    view = memoryview(content)
    at = len(PNG_MAGIC)
    while at + 8 <= len(view):
        end = at + 12 + struct.unpack_from(">I", view, at)[0]
        yield view[at:end]
        if view[at + 4 : at + 8] == b"IEND":
            return
        at = end


def _unpacked_profile(chunk: memoryview) -> bytes | None:
    packed = bytes(chunk[8:-4]).partition(b"\0")[2][1:]
    try:
        unpacker = zlib.decompressobj()
        profile = unpacker.decompress(packed, MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacker.eof else None
