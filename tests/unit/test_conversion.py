"""What pictures of other kinds become."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from tto.conversion import to_eight_bits
from tto.errors import UnsupportedImage
from tto.image import load_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_eight_bits_are_left_alone():
    image = Image.new("RGB", (2, 2))
    assert to_eight_bits(image) is image


@pytest.mark.parametrize("dtype", ["<u2", ">u2", np.int32])
def test_sixteen_bits_are_rounded(dtype):
    levels = np.array([[0, 128, 129, 257, 65_407, 65_535]])
    image = Image.fromarray(levels.astype(dtype))
    assert np.asarray(to_eight_bits(image)).tolist() == [[0, 0, 1, 1, 255, 255]]
    assert to_eight_bits(image).mode == "L"


def twelve_bit_tiff() -> bytes:
    """Gray of 12 bits, of the levels 0 and 4095, which Pillow reads and does not write."""
    tags = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 1, 279: 3}
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + b"\x00\x0f\xff"


def test_twelve_bits_are_scaled_as_such():
    picture = load_picture(twelve_bit_tiff(), convert=True)
    assert picture.grayscale and picture.rgb[..., 0].tolist() == [[0, 255]]


def test_a_transparent_level_of_sixteen_bits_becomes_alpha():
    image = Image.fromarray(np.array([[300, 301]], np.uint16))
    image.info["transparency"] = 301
    picture = load_picture(image, convert=True)
    assert picture.alpha.tolist() == [[255, 0]]
    assert picture.grayscale


def test_more_than_sixteen_bits_are_refused():
    with pytest.raises(UnsupportedImage, match="not of 16 bits"):
        to_eight_bits(Image.fromarray(np.array([[65_536]], np.int32)))


def test_cmyk_without_a_profile_becomes_rgb_by_pillows_formula():
    image = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    picture = load_picture(image, convert=True)
    assert picture.rgb.tolist() == [[[255, 0, 0]]]


def test_a_profile_decides_what_cmyk_means_and_does_not_travel_along(monkeypatch):
    asked = {}

    def convert(image, source, target, **options):
        asked.update(source=source, options=options)
        return Image.new("RGB", image.size, (1, 2, 3))

    monkeypatch.setattr(ImageCms, "profileToProfile", convert)
    image = Image.new("CMYK", (2, 1))
    image.info = {"icc_profile": SRGB, "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"}
    picture = load_picture(image, convert=True)
    assert asked["source"].tobytes() == SRGB
    assert asked["options"] == {
        "outputMode": "RGB",
        "renderingIntent": ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "flags": ImageCms.Flags.BLACKPOINTCOMPENSATION,
    }
    assert picture.rgb.tolist() == [[[1, 2, 3], [1, 2, 3]]]
    assert picture.icc is None and picture.exif is not None


@pytest.mark.parametrize("profile", [b"damaged", SRGB])  # sRGB is no profile of CMYK
def test_a_profile_that_does_not_fit_is_left_aside(profile):
    image = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    image.info["icc_profile"] = profile
    assert to_eight_bits(image).getpixel((0, 0)) == (255, 0, 0)


def test_lab_becomes_srgb():
    white = Image.new("LAB", (1, 1), (255, 128, 128))
    assert min(to_eight_bits(white).getpixel((0, 0))) >= 253


def test_other_colour_spaces_become_rgb():
    red = Image.new("RGB", (1, 1), (254, 0, 0))
    for mode in ("YCbCr", "HSV"):
        assert np.abs(np.asarray(to_eight_bits(red.convert(mode)), int) - np.asarray(red, int)).max() <= 2


def test_sixteen_bits_of_colour_are_read_on_request():
    from tests.unit.test_image import sixteen_bit_rgb_png

    data = sixteen_bit_rgb_png(b"\x12\xff\x80\x01\xff\x00")
    assert load_picture(io.BytesIO(data), convert=True).rgb.tolist() == [[[0x12, 0x80, 0xFF]]]


def test_what_has_no_known_range_is_refused_on_request_too():
    with pytest.raises(UnsupportedImage, match="mode F is not supported"):
        load_picture(Image.new("F", (2, 2)), convert=True)
