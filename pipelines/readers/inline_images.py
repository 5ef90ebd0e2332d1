"""Images that are stored as text where a name is expected: `data:` URIs, base64, and raw bytes."""

import binascii
from urllib.parse import unquote_to_bytes

from pipelines.errors import SampleError, clipped

MAX_NAME_CHARS = 4096
"""No system has file names that are longer."""
SHOWN_CHARS = 60
"""Number of characters of an inline image that are shown in a message."""
HEAD_CHARS = 32
"""Number of base64 characters that must look like the beginning of an image."""
SIGNATURES: tuple[tuple[int, bytes], ...] = (
    *((0, start) for start in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")),
    *((0, start) for start in (b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ", b"\xff\x4f\xff\x51", b"qoif", b"8BPS", b"DDS ")),
    *((0, start) for start in (b"\0\0\1\0", b"\0\0\2\0")),
    (4, b"ftyp"),
    (8, b"WEBP"),
)
"""(offset, bytes) near the beginning of the usual formats. BMP is checked separately: two letters may be a name."""


def inline_image(text: str) -> bytes | None:
    """Return the bytes of an image that a text holds, or None for a text that can only be the name of an image.

    A text is content if it is a `data:` URI, if it begins as images do, or if it is too long for a name. It may be raw
    bytes or base64, standard or URL-safe, with or without white space.

    Raises:
        SampleError: the text is an image that cannot be decoded.
    """
    if text[:5].lower() == "data:":
        return _data_uri(text)
    if _is_binary(text):
        return text.encode("utf-8", "surrogateescape")
    if "." in text or ":" in text:
        return None
    compact = "".join(text.split())
    is_long = len(compact) > MAX_NAME_CHARS
    if not _looks_like_an_image(_decoded(compact[:HEAD_CHARS])) and not is_long:
        return None
    content = _decoded(compact)
    if content is None:
        raise SampleError("read", f"the image is neither a URI nor valid base64: {clipped(text, SHOWN_CHARS)}")
    return content


def decoded_bytes(content: bytes) -> bytes:
    """Return the bytes of an image: base64 and `data:` URIs are decoded, all other bytes are returned as they are.

    Raises:
        SampleError: the bytes are a `data:` URI or base64 of an image that cannot be decoded.
    """
    head = content[: 2 * HEAD_CHARS]
    if not head.isascii():
        return content
    compact = "".join(head.decode().split())
    if not compact.lower().startswith("data:") and not _looks_like_an_image(_decoded(compact[:HEAD_CHARS])):
        return content
    return inline_image(content.decode("latin-1").strip()) or content


def _is_binary(text: str) -> bool:
    """Return whether a text is the raw bytes of an image: it has NUL characters or is not UTF-8."""
    if "\0" not in text and not any("\udc80" <= letter <= "\udcff" for letter in text[:HEAD_CHARS]):
        return False
    head = text[:HEAD_CHARS].encode("utf-8", "surrogateescape")
    return len(text) > MAX_NAME_CHARS or _looks_like_an_image(head)


def _data_uri(uri: str) -> bytes:
    """Decode a `data:[TYPE][;base64],CONTENT` URI, https://www.rfc-editor.org/rfc/rfc2397."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise SampleError("read", f"a data: URI without a comma before its content: {clipped(uri, SHOWN_CHARS)}")
    content = unquote_to_bytes(body.encode("utf-8", "surrogateescape"))
    if not head.lower().rstrip().endswith(";base64"):
        return content
    decoded = _decoded("".join(content.decode("latin-1").split()))
    if decoded is None:
        raise SampleError("read", f"a data: URI whose base64 is damaged: {clipped(uri, SHOWN_CHARS)}")
    return decoded


def _decoded(base64: str) -> bytes | None:
    """Decode base64 of either alphabet, padded or not; None if the text is not base64."""
    digits = base64.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(digits + "=" * (-len(digits) % 4), strict_mode=True)
    except ValueError:  # also raised for characters that are not ASCII
        return None


def _looks_like_an_image(head: bytes | None) -> bool:
    if head is None:
        return False
    is_bmp = head.startswith(b"BM") and head[6:10] == bytes(4)
    return is_bmp or any(head[at : at + len(mark)] == mark for at, mark in SIGNATURES)
