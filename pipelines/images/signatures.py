"""Recognizing files by their first bytes, for messages about files that are not what their names say.

Tested in tests/pipelines/readers/test_misfits.py and test_damage.py.
"""

_ARCHIVES: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!", "RAR"),
)
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git-LFS pointer; get the file: git lfs pull"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
    (b"\xff\x0a", "JPEG XL; convert it to JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", "JPEG XL; convert it to JPEG or PNG"),
    (b"\x93NUMPY", "a NumPy array; convert it to PNG"),
)
_TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"<svg", "SVG; convert it to PNG"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "XML"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def kind_of(content: bytes) -> str:
    """Return what a file that begins with these bytes is, and a remedy; empty if it is not recognized."""
    for start, name in _ARCHIVES:
        if content.startswith(start):
            return f"{name} data; unpack it first"
    for start, name in _OTHERS:
        if content.startswith(start):
            return name
    if content[4:8] == b"ftyp":
        return "HEIC; convert it to JPEG or PNG" if content[8:12] in _HEIF_BRANDS else "a video or an unknown image"
    text = content[:100].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return next((name for start, name in _TEXTS if text.startswith(start)), "")
