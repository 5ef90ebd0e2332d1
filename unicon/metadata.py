"""Image files whose metadata keeps Pillow from opening them, though their pixels are sound."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
MAX_PROFILE_BYTES = 16 << 20


class Readable(NamedTuple):
    """A file in which metadata that says nothing of the pixels is left out."""

    content: bytes
    profile: bytes | None = None
    """The color profile, where the file has lost it."""


def without_metadata(content: bytes) -> Iterator[Readable]:
    """An image file that cannot be opened, with less and less of its metadata. Nothing where that does not help.

    Pillow refuses a PNG whose texts or profile are large once unpacked, or damaged. Nothing is unpacked here but a
    profile, up to MAX_PROFILE_BYTES.
    """
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


def _png(chunks: Iterator[memoryview]) -> Readable:
    return Readable(b"".join((PNG_MAGIC, *chunks)))


def _png_chunks(content: bytes) -> Iterator[memoryview]:
    """Length, kind, data and checksum of every chunk; what is cut short is the last one."""
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
