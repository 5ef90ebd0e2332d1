"""Images are converted to sRGB by their color profile, and no profile remains on converted pixels."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.profiles import DISPLAY_P3, SRGB, cmyk_profile, gray_profile, rgb_profile
from unicon import images
from unicon.colors import to_srgb

ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
LITTLE_CMS_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def colorful(mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    return Image.fromarray(small).resize((24, 16), Image.Resampling.BICUBIC).convert(mode)


def with_profile(image: Image.Image, profile: bytes) -> Image.Image:
    image = image.copy()
    image.info["icc_profile"] = profile
    return image


def by_little_cms(image: Image.Image, profile: bytes) -> np.ndarray:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    return np.asarray(converted)


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", rgb_profile(DISPLAY_P3)),
        ("RGB", rgb_profile(ADOBE_RGB, 2.2)),
        ("CMYK", cmyk_profile(50)),
        ("L", gray_profile(1.0)),
    ],
    ids=["display-p3", "adobe-rgb", "cmyk", "linear-gray"],
)
def test_colors_are_converted_by_the_profile(mode: str, profile: bytes) -> None:
    image = colorful(mode)
    found = to_srgb(with_profile(image, profile))
    np.testing.assert_array_equal(np.asarray(found), by_little_cms(image, profile))
    assert np.abs(np.asarray(found).astype(int) - np.asarray(image.convert("RGB"))).max() > 8
    assert found.mode == "RGB" and "icc_profile" not in found.info


def test_known_colors_of_display_p3() -> None:
    """Pure sRGB red is (234, 51, 35) in Display P3."""
    image = Image.new("RGB", (2, 2), (234, 51, 35))
    found = np.asarray(to_srgb(with_profile(image, rgb_profile(DISPLAY_P3))))[0, 0]
    assert np.abs(np.subtract(found, (255, 0, 0), dtype=int)).max() <= 2


@pytest.mark.parametrize("profile", [rgb_profile(SRGB), LITTLE_CMS_SRGB], ids=["tables", "parametric"])
def test_pixels_that_are_srgb_stay_as_they_are(profile: bytes) -> None:
    image = with_profile(colorful(), profile)
    assert to_srgb(image) is image
    plain = colorful()
    assert to_srgb(plain) is plain


@pytest.mark.parametrize("mode", ["P", "RGBA", "RGBX", "YCbCr"])
def test_modes_with_an_rgb_profile(mode: str) -> None:
    profile = rgb_profile(DISPLAY_P3)
    image = colorful(mode)
    found = to_srgb(with_profile(image, profile))
    np.testing.assert_array_equal(np.asarray(found), by_little_cms(image.convert("RGB"), profile))


@pytest.mark.parametrize("mode", ["LA", "I;16"])
def test_modes_with_a_gray_profile(mode: str) -> None:
    """128 of linear gray is 188 of sRGB."""
    wide = Image.fromarray(np.full((2, 2), 128 * 257, np.uint16))
    image = Image.new("LA", (2, 2), (128, 255)) if mode == "LA" else wide
    assert to_srgb(with_profile(image, gray_profile(1.0))).getpixel((0, 0)) == (188, 188, 188)


def test_transparency_lies_on_the_background_of_srgb() -> None:
    image = colorful("RGBA")
    image.putalpha(0)
    found = to_srgb(with_profile(image, rgb_profile(DISPLAY_P3)), "#808080")
    assert (np.asarray(found) == 128).all()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", b"no profile"),
        ("RGB", rgb_profile(DISPLAY_P3)[:200]),
        ("RGB", cmyk_profile(50)),
        ("RGB", gray_profile(1.0)),
        ("CMYK", rgb_profile(DISPLAY_P3)),
        ("CMYK", cmyk_profile(50)[:300]),
        ("L", rgb_profile(DISPLAY_P3)),
        ("1", gray_profile(1.0)),
        ("LA", rgb_profile(DISPLAY_P3)),
    ],
)
def test_a_profile_that_is_damaged_or_of_another_space_is_ignored_and_dropped(mode: str, profile: bytes) -> None:
    image = colorful(mode)
    found = to_srgb(with_profile(image, profile))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(to_srgb(image)))
    assert "icc_profile" not in found.info
    assert with_profile(image, profile).info["icc_profile"] == profile


def test_lab_becomes_rgb_without_a_profile_of_its_own() -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(colorful(), ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    assert lab is not None
    del lab.info["icc_profile"]
    found = to_srgb(lab)
    assert np.abs(np.asarray(found).astype(int) - np.asarray(colorful())).mean() < 3
    assert "icc_profile" not in found.info


def test_the_library_sees_the_same_colors() -> None:
    image = with_profile(colorful(), rgb_profile(DISPLAY_P3))
    np.testing.assert_array_equal(np.asarray(images.to_rgb(image)), np.asarray(to_srgb(image)))


def test_an_image_without_one_finite_number_is_refused() -> None:
    with pytest.raises(ValueError, match="no pixel of the image is a finite number"):
        images.to_rgb(Image.fromarray(np.full((4, 4), np.nan, np.float32)))
