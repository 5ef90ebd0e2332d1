"""A thousand odd and broken images through the tar reader: each becomes one row or one error row with a reason.

All are generated, and are the same every time: every format and mode that Pillow writes, at several sizes; then cut
short, with changed bytes, under wrong names, empty, with absurd sizes in their headers, and files that are not images.
"""

import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipelines.dataset.layout import Listing
from pipelines.errors import SampleError
from pipelines.images.codec import open_image
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.planning.plan import make_plan
from pipelines.readers.chunks import read_chunk
from pipelines.readers.measure import measure
from pipelines.readers.shards import find_shards
from pipelines.samples import Columns
from tests.support.inputs import write_tar

MAX_PIXELS = 500_000
MODES = (
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"),
    *("I", "F", "I;16", "I;16B"),
)
NOT_READ = frozenset({"EPS", "PDF", "PALM", "BUFR", "GRIB", "HDF5", "WMF"})
"""What Pillow writes and does not read by itself, or only by running another program."""
SIZES = ((40, 24), (37, 23), (2, 3))
CLIPPED_WHEN_WRITTEN = {("I;16", kind) for kind in ("AVIF", "GIF", "SPIDER", "WEBP")}
"""Pillow itself writes these 16-bit grays as 8-bit white."""


@cache
def base(size: tuple[int, int]) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    gray = np.asarray(image.convert("L")).astype(np.uint16) * 257
    if mode == "I;16":
        return Image.fromarray(gray)
    if mode == "I;16B":
        return Image.frombytes(mode, image.size, gray.astype(">u2").tobytes())
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
        assert converted is not None  # None is returned for conversions in place only
        return converted
    through = {"PA": "P", "La": "LA", "RGBa": "RGBA"}.get(mode)
    return image.convert(mode) if through is None else image.convert(through).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes | None:
    """Encode an image; None if Pillow does not write this mode in this format."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            image.save(buffer, kind, **options)
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return buffer.getvalue()


@cache
def good_images() -> dict[str, tuple[str, str, tuple[int, int], bytes]]:
    """Return name -> (format, mode, size, content)."""
    Image.init()
    found = {}
    for kind in sorted(Image.SAVE.keys() - NOT_READ - {"ICNS"}):
        for mode in MODES:
            for size in SIZES:
                content = encoded(in_mode(base(size), mode), kind)
                if content is not None:
                    name = f"good-{kind}-{mode.replace(';', '_')}-{size[0]}".lower()
                    found[name] = kind, mode, size, content
    return found


def broken_images() -> Iterator[tuple[str, bytes]]:
    """Yield good images cut short, and with changed bytes."""
    rng = np.random.default_rng(1)
    contents = [content for kind, _, _, content in good_images().values() if len(content) > 20]
    for number in range(350):
        content = contents[int(rng.integers(len(contents)))]
        yield f"cut-{number:03d}", content[: int(rng.integers(1, len(content)))]
    for number in range(400):
        flipped = bytearray(contents[int(rng.integers(len(contents)))])
        for at in rng.integers(0, min(len(flipped), 400 if number % 2 else len(flipped)), 1 + number % 5):
            flipped[at] = int(rng.integers(256))
        yield f"flip-{number:03d}", bytes(flipped)


def absurd_files() -> Iterator[tuple[str, bytes]]:
    """Return files that are not images, and headers that promise more than there is."""
    rng = np.random.default_rng(2)
    yield from ((f"empty-{number}", b"") for number in range(5))
    yield from ((f"noise-{number}", rng.bytes(int(rng.integers(1, 3000)))) for number in range(40))
    texts = (b"hello", b"<html>404 Not Found</html>", b"{}", b"\0" * 1000, b"P6\n", b"GIF89a", b"\xff\xd8\xff", b"BM")
    yield from ((f"text-{number}", text) for number, text in enumerate(texts))
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 24\nshowpage\n%%EOF\n"
    for side in (5_000, 60_000, 2**31 - 1):
        for name, content in bombs(side).items():
            yield f"bomb-{name}-{side}", content


def bombs(side: int) -> dict[str, bytes]:
    """Return tiny files whose headers claim side x side pixels."""
    short = min(side, 65_535)
    ihdr = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(bytes(10_000)))
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
    return {
        "png": png,
        "gif": b"GIF89a" + struct.pack("<HH", short, short) + b"\x80\0\0" + bytes(6) + b",\0\0\0\0"
        + struct.pack("<HH", short, short) + b"\0\x02\x02L\x01\0;",
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
        "ppm": f"P6 {side} {side} 255\n".encode(),
        "tiff": tiff + bytes(4),
        "tga": bytes((0, 0, 2)) + bytes(9) + struct.pack("<HHBB", short, short, 24, 0),
        "qoi": b"qoif" + struct.pack(">IIBB", side, side, 3, 0) + bytes(20),
    }  # fmt: skip


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@cache
def zoo() -> dict[str, bytes]:
    files = {name: content for name, (_, _, _, content) in good_images().items()}
    return files | dict(broken_images()) | dict(absurd_files())


def outcome(content: bytes, problem: SampleError | None) -> Image.Image | SampleError:
    try:
        if problem is not None:
            raise problem
        return open_image(content, MAX_PIXELS)[0]
    except SampleError as error:
        return error


def test_every_file_is_one_row_or_one_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = [f"{name}.{str(rng.choice(IMAGE_EXTENSIONS))}" for name in zoo()]  # mostly wrong extensions
    names = [name.upper() if number % 7 == 0 else name for number, name in enumerate(names)]
    members = [item for name, content in zip(names, zoo().values(), strict=True) for item in ((name, content),)]
    assert len(members) >= 1000
    path = write_tar(tmp_path / "zoo.tar", members)
    measured = measure(find_shards([str(path)]), Columns(), str(tmp_path / "out"))
    plan = make_plan(measured, Listing(finished=(), remains=()), "c" * 16, 64)
    samples = [sample for chunk in plan.chunks for sample in read_chunk(chunk, Columns())]
    assert [sample.image_name for sample in samples] == names
    results = {sample.key.lower(): outcome(sample.image, sample.problem) for sample in samples}
    assert results.keys() == zoo().keys()
    kinds = Counter((key.split("-")[0], isinstance(result, SampleError)) for key, result in results.items())
    assert all(result.reason for result in results.values() if isinstance(result, SampleError))
    assert not [key for key, result in results.items() if key.startswith("good") and isinstance(result, SampleError)]
    assert not {kind for kind, failed in kinds if kind in ("empty", "text", "bomb", "postscript") and not failed}
    assert kinds["cut", True] > 200
    assert kinds["flip", False] > 50 and kinds["flip", True] > 50


def test_good_images_look_as_they_should() -> None:
    for name, (kind, mode, size, content) in good_images().items():
        image, _ = open_image(content, MAX_PIXELS)
        if mode == "1" or (mode.split("B")[0], kind) in CLIPPED_WHEN_WRITTEN or min(size) < 20 or kind == "ICO":
            continue  # one bit shows nothing to compare, ICO keeps sizes of icons only
        is_gray = mode in ("L", "LA", "La", "I", "F", "I;16", "I;16B") or kind == "SPIDER"
        expected = base(size).convert("L") if is_gray else base(size)
        difference = np.abs(np.asarray(image.convert(expected.mode)).astype(int) - np.asarray(expected).astype(int))
        assert difference.mean() < (16 if "P" in mode else 6), name


ORIENTATIONS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera held that way does to the pixels it stores."""


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_orientations(orientation: int, kind: str) -> None:
    upright = base((40, 24))
    turn = ORIENTATIONS[orientation]
    held = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(held, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {"quality": 95}))
    assert content is not None
    if kind == "JPEG2000":
        return  # Pillow writes no EXIF into it
    image, _ = open_image(content, MAX_PIXELS)
    assert image.size == (40, 24)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright).astype(int)).mean() < 6


def test_broken_exif_does_not_spoil_a_good_image() -> None:
    for exif in (b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"):
        content = encoded(base((40, 24)), "JPEG", exif=exif)
        assert content is not None
        assert open_image(content, MAX_PIXELS)[0].size == (40, 24)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (40, 24), color) for color in ("red", "green", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert content is not None
    red, green, blue = np.asarray(open_image(content, MAX_PIXELS)[0]).reshape(-1, 3).mean(0)
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "P", "L", "RGB"])
@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparency_is_put_on_the_background(mode: str, background: str, level: int) -> None:
    """Left half opaque, right half transparent, by an alpha channel or by a color that counts as transparent."""
    gray = np.full((24, 40), 100, np.uint8)
    gray[:, 20:] = 200
    options: dict[str, object] = {}
    if mode in ("LA", "RGBA", "PA"):
        alpha = Image.fromarray(np.where(gray == 100, 255, 0).astype(np.uint8))
        image = Image.fromarray(gray)
        image = image if mode == "LA" else image.convert("RGB" if mode == "RGBA" else "P")
        image.putalpha(alpha)
    else:
        image = Image.fromarray(gray).convert(mode)
        options["transparency"] = (200, 200, 200) if mode == "RGB" else int(np.asarray(image)[0, 30])
    content = encoded(image, "TIFF" if mode == "PA" else "PNG", **options)
    assert content is not None
    values = np.asarray(open_image(content, MAX_PIXELS, background)[0])
    assert np.abs(values[:, :20].astype(int) - 100).max() <= 1
    assert (values[:, 20:] == level).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_dark_sixteen_bit_gray_stays_dark(mode: str) -> None:
    """200 of 65535 is black, though it would be light in 8 bits."""
    kind = "<u2" if mode == "I;16" else ">u2"
    image = Image.frombytes(mode, (40, 24), np.full((24, 40), 200, kind).tobytes())
    content = encoded(image, "TIFF")
    assert content is not None
    assert np.asarray(open_image(content, MAX_PIXELS)[0]).max() == 1


def test_cmyk_of_adobe_is_not_inverted() -> None:
    content = encoded(base((40, 24)).convert("CMYK"), "JPEG", quality=95)
    assert content is not None
    without_marker = content.replace(content[content.index(b"\xff\xee") :][: 2 + 14], b"", 1)
    for stored in (content, without_marker):
        assert b"Adobe" in stored or stored is without_marker
        image, _ = open_image(stored, MAX_PIXELS)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(base((40, 24))).astype(int)).mean() < 6
