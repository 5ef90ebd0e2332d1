"""Files that hold several images, and file names that match their content."""

from typing import Any

from PIL import Image

SPELLINGS = {"jpg": ("jpg", "jpeg", "jpe", "jfif"), "png": ("png", "apng"), "webp": ("webp",)}
"""Usual extension -> all extensions, for the formats that are stored unchanged."""
MPF_ENTRIES = 0xB002


def is_image_name(uri: str) -> bool:
    """Return whether a file has an extension of IMAGE_EXTENSIONS."""
    name = uri.rsplit("/", 1)[-1].lower()
    return "." in name and name.rsplit(".", 1)[-1] in IMAGE_EXTENSIONS


def first_image(content: bytes, image: Image.Image) -> bytes:
    """Return the first of several JPEGs in one file (MPO) unchanged, or the whole file if its list is wrong."""
    entries: Any = getattr(image, "mpinfo", None) or {}
    size_bytes = entries.get(MPF_ENTRIES, [{}])[0].get("Size", 0)
    first = content[:size_bytes]
    return first if 0 < size_bytes <= len(content) and first.rstrip(b"\0").endswith(b"\xff\xd9") else content


def extension_of(content: bytes) -> str:
    """Return the usual extension of a JPEG, WebP or PNG file, by its first bytes."""
    return "jpg" if content.startswith(b"\xff\xd8") else "webp" if content[8:12] == b"WEBP" else "png"


def fitting_name(name: str, content: bytes, image_extensions: tuple[str, ...]) -> str:
    """Return a file name with an extension that matches the content: `x.gif` of a PNG becomes `x.png`."""
    stem, dot, ending = name.rpartition(".")
    extension = extension_of(content)
    if stem and ending.lower() in SPELLINGS[extension]:
        return name
    is_extension = bool(stem) and ending.lower() in image_extensions
    return f"{stem if is_extension else name}.{extension}"


# fmt: off
IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "webp", "png", "tif", "tiff", "bmp", "gif", "jp2", "avif", "ppm", "pgm", "pbm", "tga", "ico", "jfif",
    "heic", "heif", "jxl", "apng", "avifs", "blp", "bw", "cur", "dcx", "dds", "dib", "fit", "fits", "flc", "fli", "ftc",
    "ftu", "gbr", "icb", "icns", "iim", "im", "j2c", "j2k", "jpc", "jpe", "jpf", "jpx", "mpo", "msp", "pcd", "pcx",
    "pfm", "pnm", "psd", "pxr", "qoi", "ras", "rgb", "rgba", "sgi", "vda", "vst", "xbm", "xpm",
)
# fmt: on
"""The extensions that Pillow decodes, usual ones first. Of several images of a sample, the first of these is used."""
