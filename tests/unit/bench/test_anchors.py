from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tto.bench.anchors import ANCHORS
from tto.metrics import psnr


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """192×176 pixels whose channels resemble each other, as in nature."""
    random = np.random.default_rng(0)
    coarse = random.integers(20, 236, (11, 12, 1)) + random.integers(-20, 20, (11, 12, 3))
    return Image.fromarray(coarse.astype(np.uint8)).resize((192, 176), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("anchor", ANCHORS.values(), ids=ANCHORS)
def test_a_file_is_whole_and_more_bytes_look_better(anchor, photograph):
    assert anchor.available()
    rungs = [anchor.ladder[2], anchor.ladder[-3]]
    files = [anchor.encode(photograph, quality) for quality in rungs]
    decoded = [anchor.decode(data) for data in files]
    assert all(image.mode == "RGB" and image.size == photograph.size for image in decoded)
    assert Image.open(io.BytesIO(files[0])).format == anchor.pillow_format
    assert len(files[0]) < len(files[1])
    original = np.asarray(photograph)
    low, high = (psnr(original, np.asarray(image)) for image in decoded)
    assert low < high


@pytest.mark.parametrize("anchor", ANCHORS.values(), ids=ANCHORS)
def test_the_same_picture_gives_the_same_bytes_whatever_it_carries(anchor, photograph):
    laden = photograph.copy()
    laden.info["comment"] = b"a remark"
    assert anchor.encode(laden, anchor.ladder[0]) == anchor.encode(photograph, anchor.ladder[0])


def test_jpeg_settings_are_as_described(photograph):
    image = Image.open(io.BytesIO(ANCHORS["jpeg"].encode(photograph, 50)))
    assert image.info["progressive"]
    sampling = [layer[1:3] for layer in image.layer]
    assert sampling == [(2, 2), (1, 1), (1, 1)]  # 4:2:0
    assert "progressive" not in Image.open(io.BytesIO(ANCHORS["jpeg-baseline"].encode(photograph, 50))).info
    assert len(ANCHORS["jpeg"].encode(photograph, 50)) < len(ANCHORS["jpeg-baseline"].encode(photograph, 50))


def test_jpeg2000_transforms_colour(photograph):
    ours = ANCHORS["jpeg2000"].decode(ANCHORS["jpeg2000"].encode(photograph, 0.3))
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[80])
    plain = Image.open(buffer).convert("RGB")
    original = np.asarray(photograph)
    assert psnr(original, np.asarray(ours)) > psnr(original, np.asarray(plain))


def test_jpeg2000_quality_is_its_rate_in_bits_per_pixel():
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    data = ANCHORS["jpeg2000"].encode(noisy, 1.0)
    assert 8 * len(data) / (256 * 256) == pytest.approx(1, rel=0.1)


def test_versions_name_the_library():
    assert ANCHORS["jpeg"].version().startswith("Pillow ")
    assert "libjpeg_turbo" in ANCHORS["jpeg"].version()
