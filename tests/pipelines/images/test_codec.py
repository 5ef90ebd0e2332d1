"""Decoding of every mode, limits, broken files, and depth levels."""

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import SampleError
from pipelines.images.codec import NOT_DECODED, depth_levels, open_image, resize_levels, shrink
from pipelines.images.containers import IMAGE_EXTENSIONS
from pipelines.images.png import png_bytes
from tests.support.inputs import encoded_image
from unicon import colors

LIMIT = 1_000_000


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def every_mode() -> list[Image.Image]:
    base = Image.open(io.BytesIO(encoded_image(1)))
    grey = np.asarray(base.convert("L"))
    return [
        *(base.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F")),
        Image.fromarray(grey.astype(np.uint16) * 257),
        Image.fromarray(grey.astype(np.int32) * 200),
        Image.fromarray(grey.astype(np.float32) / 255),
    ]


@pytest.mark.parametrize("image", every_mode(), ids=lambda image: image.mode)
def test_modes_become_what_the_model_library_makes_of_them(image: Image.Image) -> None:
    from unicon.images import to_rgb

    ours = colors.to_srgb(image)
    assert ours.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(to_rgb(image)))


def test_files_are_images_by_every_extension_that_pillow_decodes() -> None:
    Image.init()
    decoded = {name.lstrip(".") for name, kind in Image.registered_extensions().items() if kind in Image.OPEN
               and kind not in NOT_DECODED}  # fmt: skip
    by_plugins_of_others = {"heic", "heif", "jxl"}
    assert {*IMAGE_EXTENSIONS} == decoded | by_plugins_of_others | {"mpo"}  # Pillow takes it for JPEG at first


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)
    image, stored_format = open_image(content, LIMIT)
    assert (image.size, stored_format) == ((20, 40), "JPEG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello", "not an image"),
        (encoded_image()[:300], "broken image|not an image"),
        (encoded_image(kind="PNG")[:200], "broken image"),
        (encoded_image(size=(1001, 1000)), "exceed --max-pixels"),
        (encoded(Image.new("1", (20000, 20000)), "PNG"), "more pixels than"),
        (encoded(Image.new("L", (1, 50)), "PNG"), "too few"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_used_is_a_sample_error(content: bytes, reason: str) -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(SampleError, match=reason):
        open_image(content, LIMIT)
    assert before == Image.MAX_IMAGE_PIXELS


def test_shrink_keeps_the_aspect_ratio() -> None:
    assert shrink(Image.new("RGB", (4000, 1000)), 1_000_000).size == (2000, 500)
    assert shrink(Image.new("RGB", (40, 10)), 1_000_000).size == (40, 10)


def test_levels_are_the_encoding_of_the_model_library() -> None:
    from unicon.conditions import CONDITIONS

    depth = np.random.default_rng(0).random((20, 30), np.float32) * 1.2 - 0.1
    levels = depth_levels(depth)
    np.testing.assert_array_equal(levels, np.asarray(CONDITIONS["depth"].encode(depth)))
    decoded = Image.open(io.BytesIO(png_bytes(Image.fromarray(levels))))
    np.testing.assert_array_equal(np.asarray(decoded), levels)


def test_levels_are_resized_like_maps() -> None:
    from unicon.images import resize_map

    depth = np.random.default_rng(0).random((20, 30), np.float32)
    resized = resize_levels(depth_levels(depth), (75, 50))
    assert resized.shape == (50, 75)
    np.testing.assert_allclose(resized / 65535, resize_map(depth, (75, 50)), atol=2e-5)
