"""A codec that needs no network, and pictures small enough to measure in milliseconds."""

from __future__ import annotations

import io
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tto.bench import coders
from tto.bench.rows import Row


@pytest.fixture(scope="session", autouse=True)
def few_resamples():
    """Intervals are none of most tests' business, and a thousand of each take their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tto.bench.compare.RESAMPLES", 100)
        yield


class FakeNetwork(torch.nn.Linear):
    y_stride = 16


class FakeCodec:
    """WebP in the clothes of a learned codec: more effort buys a better setting of it.

    `calls` holds (quality, options) of every compression.
    """

    qualities = 8
    fingerprint = b"fakecode"
    trained_for = "lambda 0.01"
    device = torch.device("cpu")
    side_coder = SimpleNamespace(fingerprint=b"")

    def __init__(self) -> None:
        self.model = FakeNetwork(3, 2)
        self.calls: list[tuple[float, dict]] = []

    def at(self, quality: float) -> FakeCodec:
        return self

    def for_file(self, data: bytes) -> FakeCodec:
        return self

    def compress(self, image: Image.Image, quality: float, **options) -> SimpleNamespace:
        self.calls.append((quality, options))
        method = {"none": 0, "fast": 3, "best": 6}.get(options.get("effort", "none"), 0)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=int(10 * quality), method=method)
        time.sleep(0.002 * method)
        data = buffer.getvalue()
        return SimpleNamespace(
            data=data,
            J=1.0 - method / 10,
            base_bytes=len(data) + 10,
            base_psnr=30.0,
            base_J=1.0,
            steps=options.get("steps", method),
        )

    def decompress(self, data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(data))


def install(patch: pytest.MonkeyPatch) -> FakeCodec:
    codec = FakeCodec()
    patch.setattr(coders, "load_model_once", lambda model, device: codec)
    patch.setattr("tto.bench.report.examples.bits_per_position", lambda *_: np.ones((11, 12)))
    return codec


@pytest.fixture
def fake_codec(monkeypatch) -> FakeCodec:
    """What every model name stands for."""
    return install(monkeypatch)


@pytest.fixture(scope="module")
def lasting_fake_codec():
    """The same for all tests of a module that do not look at its calls."""
    with pytest.MonkeyPatch.context() as patch:
        yield install(patch)


@pytest.fixture(scope="session")
def shared_pictures(tmp_path_factory) -> Path:
    """A folder of three smooth pictures of 192×176 pixels, a.png, b.png and c.png, to look at only."""
    folder = tmp_path_factory.mktemp("shared") / "pictures"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        random = np.random.default_rng(seed)
        coarse = Image.fromarray(random.integers(0, 256, (11, 12, 3), np.uint8))
        coarse.resize((192, 176), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def pictures(shared_pictures, tmp_path) -> Path:
    """A copy of them that a test may change."""
    return Path(shutil.copytree(shared_pictures, tmp_path / "pictures"))


@pytest.fixture
def make_rows():
    """A function that invents rows of one codec: 30, 33, 36 dB at `rate`, twice, four times `rate` bpp."""

    def make(codec: str, rate: float, effort: str = "", images: str = "abc", **changes) -> list[Row]:
        rows = []
        for number, image in enumerate(images):
            for step in range(3):
                bpp = rate * 2**step * (1 + number / 10)
                row = Row(
                    dataset="set",
                    image=f"{image}.png",
                    content=image,
                    width=768,
                    height=512,
                    codec=codec,
                    effort=effort,
                    quality=float(step + 1),
                    settings="",
                    version="",
                    file="",
                    bytes=round(bpp * 768 * 512 / 8),
                    bpp=bpp,
                    scores={"psnr": 30.0 + 3 * step + number, "ms_ssim": 0.9 + step / 40},
                    J=2 * bpp if effort else math.nan,
                    base_bytes=math.nan,
                    base_psnr=math.nan,
                    base_J=math.nan,
                    steps=0,
                    encode_seconds=1.0 + step,
                    decode_seconds=0.5,
                    peak_memory_mb=100.0 + number,
                    parameters=5_300_000 if effort else 0,
                    jobs=1,
                    threads=1,
                )
                rows.append(replace(row, **changes))
        return rows

    return make
