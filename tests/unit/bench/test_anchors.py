from __future__ import annotations

import io
import re
from functools import cache

import numpy as np
import pytest
from PIL import Image

from tto.bench.anchors import ANCHORS, video
from tto.bench.anchors.anchor import at_least
from tto.bench.anchors.video import from_planes, to_planes
from tto.bench.ffmpeg import ProgramFailed
from tto.metrics import psnr

VIDEO = ("hevc", "vvc", "vvc-slow")
TRIED = [name for name in ANCHORS if name != "vvc-slow"]  # which is vvc with another word in its options
MAGIC = {
    "jpeg": b"\xff\xd8",
    "jpeg2000": b"\xff\x4f\xff\x51",  # SOC and SIZ: no JP2 boxes
    "jxl": b"\xff\x0a",  # a bare codestream
    "webp": b"RIFF",
    "hevc": b"\0\0\0\x01\x40\x01",  # a video parameter set
    "vvc": b"\0\0\0\x01\x00\x79",  # a sequence parameter set, no delimiter
}


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """192×176 pixels whose channels resemble each other, as in nature."""
    random = np.random.default_rng(0)
    coarse = random.integers(20, 236, (11, 12, 1)) + random.integers(-20, 20, (11, 12, 3))
    return Image.fromarray(coarse.astype(np.uint8)).resize((192, 176), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def small(photograph) -> Image.Image:
    """Little enough for encoders of video."""
    return photograph.crop((0, 0, 64, 48))


@pytest.fixture(scope="module")
def pair(small):
    """An anchor's two files of few and of many bytes, made once."""

    @cache
    def make(name: str) -> tuple[bytes, bytes]:
        files = [ANCHORS[name].encode(small, ANCHORS[name].ladder[place]).data for place in (2, -3)]
        return tuple(sorted(files, key=len))

    return make


@pytest.mark.parametrize("name", TRIED)
def test_a_file_decodes_to_the_picture_and_more_bytes_look_better(name, pair, small):
    assert ANCHORS[name].missing() == ""
    decoded = [ANCHORS[name].decode(data) for data in pair(name)]
    assert all(image.mode == "RGB" and image.size == small.size for image in decoded)
    original = np.asarray(small)
    low, high = (psnr(original, np.asarray(image)) for image in decoded)
    assert 15 < low < high


@pytest.mark.parametrize("name", TRIED)
def test_the_same_picture_gives_the_same_bytes_whatever_it_carries(name, pair, small):
    laden = small.copy()
    laden.info["comment"] = b"a remark"
    rung = ANCHORS[name].ladder[-3 if name in VIDEO else 2]
    assert ANCHORS[name].encode(laden, rung).data == pair(name)[0]


@pytest.mark.parametrize("name, magic", MAGIC.items())
def test_the_container_is_the_smallest(name, magic, pair):
    assert pair(name)[0].startswith(magic)


def test_jpeg_settings_are_as_described(photograph):
    image = Image.open(io.BytesIO(ANCHORS["jpeg"].encode(photograph, 50).data))
    assert image.info["progressive"]
    sampling = [layer[1:3] for layer in image.layer]
    assert sampling == [(2, 2), (1, 1), (1, 1)]  # 4:2:0
    assert "progressive" not in Image.open(io.BytesIO(ANCHORS["jpeg-baseline"].encode(photograph, 50).data)).info
    sizes = [len(ANCHORS[name].encode(photograph, 50).data) for name in ("jpeg", "jpeg-baseline")]
    assert sizes[0] < sizes[1]


def test_jpeg2000_transforms_colour(photograph):
    ours = ANCHORS["jpeg2000"].decode(ANCHORS["jpeg2000"].encode(photograph, 0.3).data)
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[80])
    plain = Image.open(buffer).convert("RGB")
    original = np.asarray(photograph)
    assert psnr(original, np.asarray(ours)) > psnr(original, np.asarray(plain))


def test_jpeg2000_quality_is_its_rate_in_bits_per_pixel():
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    data = ANCHORS["jpeg2000"].encode(noisy, 1.0).data
    assert 8 * len(data) / (256 * 256) == pytest.approx(1, rel=0.1)


def test_versions_name_the_library():
    assert ANCHORS["jpeg"].version().startswith("Pillow ")
    assert "libjpeg_turbo" in ANCHORS["jpeg"].version()
    for name, encoder in (("hevc", "libx265"), ("vvc", "libvvenc")):
        assert re.fullmatch(rf"ffmpeg \S+, {encoder} \d+\.[\d.]+", ANCHORS[name].version())
    assert "pillow-jxl-plugin" in ANCHORS["jxl"].version()


def test_every_anchor_says_what_its_bytes_are():
    for anchor in ANCHORS.values():
        assert (
            f"{anchor.chroma}, {anchor.settings}" in anchor.described()
            and f"bytes of {anchor.container}" in anchor.described()
        )
    for name, preset in (("vvc", "medium"), ("vvc-slow", "slow")):
        assert ANCHORS[name].chroma == "4:2:0" and f"preset {preset}," in ANCHORS[name].settings
        assert preset in ANCHORS[name].options


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("size", [(12, 10), (13, 10), (12, 11), (13, 11)])
def test_colour_goes_there_and_back(size, subsampled):
    """A gray picture exactly, whatever its size; at 4:4:4 any picture within what 8 bits of YCbCr tell apart."""
    gray = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 1), np.uint8)
    colours = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    for pixels, tolerance in [(np.repeat(gray, 3, 2), 0)] + [(colours, 2)] * (not subsampled):
        planes, odd = to_planes(pixels, subsampled)
        height, width = planes[0].shape
        samples = np.concatenate([plane.ravel() for plane in planes])
        back = from_planes(samples, height, width, subsampled)[: height - (odd >> 1), : width - (odd & 1)]
        assert np.abs(back.astype(int) - pixels).max() <= tolerance
        assert samples.min() >= 0 and samples.max() <= 255 and np.array_equal(samples, np.round(samples))


def test_luma_is_that_of_bt601():
    white, red = np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 255
    assert [plane[0, 0] for plane in to_planes(white, False)[0]] == [255, 128, 128]
    assert [plane[0, 0] for plane in to_planes(red, False)[0]] == [76, 85, 255]


def test_encoders_are_given_the_same_gray_in_ten_bits():
    """And decoders' ten bits are taken back to eight: a flat picture comes out as it was."""
    for level in (0, 77, 255):
        flat = Image.new("RGB", (64, 64), (level, level, level))
        decoded = ANCHORS["hevc"].decode(ANCHORS["hevc"].encode(flat, 10).data)
        assert np.array_equal(np.asarray(decoded), np.asarray(flat))


def test_an_odd_picture_comes_back_in_its_size(photograph):
    odd = photograph.crop((0, 0, 65, 49))
    data = ANCHORS["vvc"].encode(odd, 37).data
    assert data.endswith(b"\0\0\0") and not data.endswith(b"\0\0\0\0")
    assert ANCHORS["vvc"].decode(data).size == (65, 49)


def test_what_an_encoder_refuses_is_told_in_its_words():
    with pytest.raises(ProgramFailed, match=r"ffmpeg failed: Image size is too small \(3x5\)"):
        ANCHORS["hevc"].encode(Image.new("RGB", (3, 5)), 30)


def test_what_is_missing_is_one_line(monkeypatch):
    monkeypatch.setattr("tto.bench.anchors.pillow.find_spec", lambda module: None)
    assert ANCHORS["jxl"].missing() == "the package pillow-jxl-plugin is not installed: pip install 'tto[bench]'"
    monkeypatch.setattr(video, "missing", lambda kind, name: f"this ffmpeg was built without {name}")
    assert ANCHORS["hevc"].missing() == "this ffmpeg was built without libx265"


def test_the_smallest_file_that_is_no_smaller(photograph):
    sizes = [len(ANCHORS["webp"].encode(photograph, quality).data) for quality in (39, 40)]
    assert sizes[0] < sizes[1]
    assert sizes[0] < len(at_least(ANCHORS["webp"], photograph, sizes[0] + 1)) < 1.1 * sizes[1]
    # Sizes of this format do not quite rise with quality; yet never is a file smaller than asked for.
    assert all(len(at_least(ANCHORS["webp"], photograph, size)) >= size for size in range(1500, 1700, 20))
    assert at_least(ANCHORS["webp"], photograph, 10**9) == ANCHORS["webp"].encode(photograph, 90).data
