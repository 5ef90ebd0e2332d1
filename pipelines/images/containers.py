"""What of a file is the image where it holds several, and names that fit its content."""

from typing import Any

from PIL import Image

SPELLINGS = {"jpg": ("jpg", "jpeg", "jpe", "jfif"), "png": ("png", "apng"), "webp": ("webp",)}
"""Usual extension -> all extensions of the formats that are stored as they came."""
MPF_ENTRIES = 0xB002


def first_image(content: bytes, image: Image.Image) -> bytes:
    """The first of several JPEGs in one file (MPO), as it came; the whole file where its list of them is wrong."""
    entries: Any = getattr(image, "mpinfo", None) or {}
    size_bytes = entries.get(MPF_ENTRIES, [{}])[0].get("Size", 0)
    first = content[:size_bytes]
    return first if 0 < size_bytes <= len(content) and first.rstrip(b"\0").endswith(b"\xff\xd9") else content


def extension_of(content: bytes) -> str:
    """The usual extension of JPEG, WebP or PNG, by its first bytes."""
    return "jpg" if content.startswith(b"\xff\xd8") else "webp" if content[8:12] == b"WEBP" else "png"


def fitting_name(name: str, content: bytes, image_extensions: tuple[str, ...]) -> str:
    """A file's name with an extension that its content agrees with: `x.gif` of a PNG becomes `x.png`."""
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
"""What Pillow decodes, the usual ones first: of several pictures of a sample the first of these is meant."""
