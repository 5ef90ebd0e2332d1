"""Image files: undecodable metadata, several images in one file, names, and the bytes that are stored."""

import gzip
import io
import re
import struct
import tarfile
import tracemalloc
import warnings
import zlib
from functools import cache

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pipelines.errors import SampleError
from pipelines.images.codec import file_name, open_and_keep, open_and_keep_map, open_image, shrink
from pipelines.images.containers import IMAGE_EXTENSIONS, fitting_name
from tests.support.inputs import encoded_image
from tests.support.paths import CASES
from tests.support.profiles import DISPLAY_P3, cmyk_profile, gray_profile, rgb_profile
from unicon import colors

LIMIT = 10**6


def encoded(kind: str, image: Image.Image | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        (image or Image.open(io.BytesIO(encoded_image(1)))).save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(kind: bytes, data: bytes, is_damaged: bool = False, at_end: bool = False) -> bytes:
    """Return a PNG with one more chunk, after its header or before its end."""
    checksum = 1 if is_damaged else zlib.crc32(kind + data)
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    content = encoded("PNG")
    at = len(content) - 12 if at_end else 33
    return content[:at] + chunk + content[at:]


def texts(count: int, size_bytes: int) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for number in range(count):
        info.add_text(f"key {number}", "x" * size_bytes, zip=True)
    return info


@cache
def large_metadata() -> dict[str, bytes]:
    junk = np.random.default_rng(0).bytes(3 << 20)
    international = PngImagePlugin.PngInfo()
    international.add_itxt("parameters", "é" * 2_000_000, zip=True)
    return {
        "png text": encoded("PNG", pnginfo=texts(1, 3 << 20)),
        "png texts": encoded("PNG", pnginfo=texts(70, 1_000_000)),
        "png itxt": encoded("PNG", pnginfo=international),
        "png profile": encoded("PNG", icc_profile=junk),
        "png exif": encoded("PNG", exif=b"Exif\0\0II*\0" + junk),
        "jpeg profile": encoded("JPEG", icc_profile=junk),
        "jpeg exif": encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + junk[:60_000]),
        "webp exif": encoded("WEBP", exif=b"Exif\0\0" + junk),
        "webp xmp": encoded("WEBP", xmp=junk),
        "tiff text": encoded("TIFF", tiffinfo={270: "x" * (3 << 20)}),
        "gif comment": encoded("GIF", comment=b"x" * (3 << 20)),
        "avif profile": encoded("AVIF", icc_profile=junk),
    }


METADATA = (
    *("png text", "png texts", "png itxt", "png profile", "png exif", "jpeg profile", "jpeg exif"),
    *("webp exif", "webp xmp", "tiff text", "gif comment", "avif profile"),
)


@pytest.mark.filterwarnings("ignore:Tag data larger", "ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", METADATA)
def test_large_metadata_say_nothing_of_the_image(name: str) -> None:
    content = large_metadata()[name]
    opened = open_and_keep(content, LIMIT, LIMIT)
    assert opened.size_px == (48, 32)
    difference = np.asarray(opened.image).astype(int) - np.asarray(Image.open(io.BytesIO(encoded_image(1))))
    assert np.abs(difference).mean() < 6
    with Image.open(io.BytesIO(opened.content)) as stored:  # readers of the rows can open them too
        assert stored.convert("RGB").size == (48, 32)


KINDS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"sBIT", b"acTL")


@pytest.mark.filterwarnings("ignore:Invalid APNG", "ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_metadata_of_a_png_say_nothing_of_the_image(kind: bytes) -> None:
    for data in (b"", b"\0", b"\xff" * 20, b"key\0\0" + b"junk" * 5):
        for is_damaged in (False, True):
            for at_end in (False, True):
                opened = open_and_keep(png_with(kind, data, is_damaged, at_end), LIMIT, LIMIT)
                assert opened.size_px == (48, 32)
                Image.open(io.BytesIO(opened.content)).load()


def test_a_png_loses_its_texts_only_where_it_must() -> None:
    with_text = encoded("PNG", pnginfo=texts(1, 1000))
    assert open_and_keep(with_text, LIMIT, LIMIT).content == with_text
    image = Image.open(io.BytesIO(encoded_image(1))).convert("RGBA")
    image.putalpha(90)
    stored = open_and_keep(encoded("PNG", image, pnginfo=texts(1, 3 << 20)), LIMIT, LIMIT).content
    assert stored == encoded("PNG", image)


def test_a_large_profile_still_converts_colors() -> None:
    profile = rgb_profile(DISPLAY_P3) + bytes(2 << 20)
    profile = struct.pack(">I", len(profile)) + profile[4:]
    content = encoded("PNG", Image.new("RGB", (8, 8), (234, 51, 35)), icc_profile=profile)
    opened = open_and_keep(content, LIMIT, LIMIT)
    assert np.abs(np.subtract(np.asarray(opened.image)[0, 0], (255, 0, 0), dtype=int)).max() <= 2
    stored = Image.open(io.BytesIO(opened.content))
    assert stored.getpixel((0, 0)) == opened.image.getpixel((0, 0)) and "icc_profile" not in stored.info


def test_bombs_of_metadata_take_little_memory_and_bombs_of_pixels_stay_refused() -> None:
    bomb = zlib.compress(bytes(100 << 20), 1)
    for kind in (b"zTXt", b"iCCP"):
        content = png_with(kind, b"key\0\0" + bomb)
        tracemalloc.start()
        try:
            assert open_and_keep(content, LIMIT, LIMIT).size_px == (48, 32)
            assert tracemalloc.get_traced_memory()[1] < 40 << 20
        finally:
            tracemalloc.stop()
    large = encoded("PNG", Image.new("1", (2_000, 2_000)), pnginfo=texts(1, 3 << 20))
    with pytest.raises(SampleError, match="--max-pixels"):
        open_and_keep(large, LIMIT, LIMIT)
    with pytest.raises(SampleError, match="broken image"):
        open_and_keep(encoded("PNG", pnginfo=texts(1, 3 << 20))[:-2000], LIMIT, LIMIT)


def mpo(count: int = 3) -> tuple[bytes, bytes]:
    """Return (a file of several JPEGs, the first of them)."""
    frames = [Image.open(io.BytesIO(encoded_image(number))) for number in range(count)]
    content = encoded("MPO", frames[0], save_all=True, append_images=frames[1:])
    return content, content[: content.index(b"\xff\xd9\xff\xd8") + 2]


def test_the_first_jpeg_of_several_is_kept_as_it_came() -> None:
    content, first = mpo()
    opened = open_and_keep(content, LIMIT, LIMIT)
    assert opened.content == first
    assert Image.open(io.BytesIO(first)).convert("RGB").tobytes() == opened.image.tobytes()
    assert open_and_keep(first, LIMIT, LIMIT).content == first
    assert open_and_keep(content + b"trailing", LIMIT, LIMIT).content == first


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_bytes_behind_an_image_are_kept_with_it(kind: str) -> None:
    for content in (encoded(kind) + b"motion" * 500, encoded(kind) + bytes(4000)):
        assert open_and_keep(content, LIMIT, LIMIT).content == content


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("x.gif", "PNG", "x.png"),
        ("x.JPG", "JPEG", "x.JPG"),
        ("x.jfif", "JPEG", "x.jfif"),
        ("x.mpo", "JPEG", "x.jpg"),
        ("x.png", "JPEG", "x.jpg"),
        ("x.jpg", "WEBP", "x.webp"),
        ("v1.0 (b).tif", "PNG", "v1.0 (b).png"),
        ("235 Track 2.0 (clean)", "JPEG", "235 Track 2.0 (clean).jpg"),
        ("photo.jpg_large", "JPEG", "photo.jpg_large.jpg"),
        (".png", "PNG", ".png.png"),
        ("key", "JPEG", "key.jpg"),
    ],
)
def test_names_fit_contents(name: str, kind: str, expected: str) -> None:
    assert fitting_name(name, encoded(kind), IMAGE_EXTENSIONS) == expected


def test_stored_files_carry_no_profile_of_another_color_space() -> None:
    base = Image.open(io.BytesIO(encoded_image(1)))
    profiles = {"RGB": rgb_profile(DISPLAY_P3), "CMYK": cmyk_profile(50), "L": gray_profile(1.0)}
    for mode, profile in profiles.items():
        for kind in ("TIFF", "JPEG", "PNG"):
            if (mode, kind) == ("CMYK", "PNG"):
                continue
            content = encoded(kind, base.convert(mode), icc_profile=profile)
            opened = open_and_keep(content, LIMIT, LIMIT)
            stored = Image.open(io.BytesIO(opened.content))
            assert (opened.content == content) == (kind != "TIFF")
            assert stored.info.get("icc_profile") == (None if kind == "TIFF" else profile)
            expected = np.asarray(colors.to_srgb(Image.open(io.BytesIO(content))))
            np.testing.assert_array_equal(np.asarray(opened.image), expected)
            if kind == "TIFF":
                np.testing.assert_array_equal(np.asarray(stored), expected)


def test_maps_keep_their_numbers_and_no_foreign_profile() -> None:
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    opened = open_and_keep_map(encoded("TIFF", Image.fromarray(levels), icc_profile=gray_profile(1.0)), LIMIT)
    np.testing.assert_array_equal(np.asarray(opened.image), levels)
    image = Image.new("CMYK", (8, 8), (10, 20, 30, 0))
    opened = open_and_keep_map(encoded("TIFF", image, icc_profile=cmyk_profile(50)), LIMIT)
    assert "icc_profile" not in Image.open(io.BytesIO(opened.content)).info


def test_a_smaller_image_for_the_model_is_that_of_its_colors() -> None:
    large = Image.open(io.BytesIO(encoded_image(1, (400, 300))))
    for options in ({}, {"icc_profile": rgb_profile(DISPLAY_P3)}):
        content = encoded("PNG", large, **options)
        opened = open_and_keep(content, LIMIT, 5000)
        expected = shrink(open_image(content, LIMIT)[0], 5000)
        assert opened.size_px == (400, 300) and opened.image.size == expected.size
        difference = np.abs(np.asarray(opened.image).astype(int) - np.asarray(expected))
        assert difference.mean() < 0.5 if options else difference.max() == 0


def test_the_files_of_other_tools() -> None:
    names = {
        "anim_gif.gif": "anim_gif.png", "mpo.jpg": "mpo.jpg", "pic.avif": "pic.png", "cmyk_icc.tif": "cmyk_icc.png",
        "grey_icc.tif": "grey_icc.png", "plain.bmp": "plain.png", "lzw.tiff": "lzw.png", "icon.ico": "icon.png",
        "wrongext.png": "wrongext.jpg", "wrongext2.jpg": "wrongext2.webp", "lab.tif": "lab.png",
    }  # fmt: skip
    with tarfile.open(CASES / "reencoded.tar") as tar:
        for member in tar:
            content = tar.extractfile(member).read()  # type: ignore[union-attr]
            opened = open_and_keep(content, LIMIT, LIMIT)
            stored = Image.open(io.BytesIO(opened.content))
            assert file_name(member.name, opened.content) == names.pop(member.name)
            assert "icc_profile" not in stored.info and stored.mode == "RGB"
            assert member.name != "mpo.jpg" or content.startswith(opened.content)
    assert not names
    with tarfile.open(CASES / "long_text.png.tar") as tar:
        (member,) = tar.getmembers()
        assert open_image(tar.extractfile(member).read(), LIMIT)[0].size == (48, 40)  # type: ignore[union-attr]


def segment(kind: int, data: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(data) + 2) + data


SEGMENTS = {
    "JFIF": segment(0xE0, b"JFIF\0"),
    "Adobe": segment(0xEE, b"Adobe\0"),
    "profile": segment(0xE2, b"ICC_PROFILE\0"),
    "list of images": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff"),
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x02ab"),
    "EXIF": segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
}


@pytest.mark.filterwarnings("ignore:Image appears to be a malformed MPO", "ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", SEGMENTS)
def test_damaged_metadata_of_a_jpeg_say_nothing_of_the_image(name: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    content = encoded("JPEG", exif=turned)
    opened = open_and_keep(content[:2] + SEGMENTS[name] + content[2:], LIMIT, LIMIT)
    assert opened.size_px == ((48, 32) if name == "EXIF" else (32, 48))
    Image.open(io.BytesIO(opened.content)).load()


def test_cmyk_stays_cmyk_where_other_metadata_are_damaged() -> None:
    content = encoded("JPEG", Image.new("CMYK", (8, 8), (0, 200, 200, 0)))
    opened = open_and_keep(content[:2] + SEGMENTS["profile"] + content[2:], LIMIT, LIMIT)
    expected = open_and_keep(content, LIMIT, LIMIT)
    np.testing.assert_array_equal(np.asarray(opened.image), np.asarray(expected.image))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC; convert it to JPEG or PNG"),
        (b"\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG; convert it to PNG"),
        (b"<!DOCTYPE html><html>404", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git-LFS pointer; get the file: git lfs pull"),
        (gzip.compress(encoded_image()), "gzip data; unpack it first"),
        (b"\0\0\0\x18ftypisom" + bytes(50), "a video or an unknown image"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(content: bytes, what: str) -> None:
    with pytest.raises(SampleError, match=re.escape(f"it is {what}; {len(content)} bytes that begin with")):
        open_image(content, LIMIT)


def test_float_images_with_pixels_that_are_no_numbers() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    sound = np.asarray(open_image(encoded("TIFF", Image.fromarray(values)), LIMIT)[0])
    for odd, level in ((np.nan, 0), (np.inf, 255), (-np.inf, 0)):
        values[0, 0] = odd
        found = np.asarray(open_image(encoded("TIFF", Image.fromarray(values)), LIMIT)[0])
        assert found[0, 0, 0] == level
        np.testing.assert_array_equal(found[1:], sound[1:])
        with pytest.raises(SampleError, match="no pixel of the image is a finite number"):
            open_image(encoded("TIFF", Image.fromarray(np.full_like(values, odd))), LIMIT)
