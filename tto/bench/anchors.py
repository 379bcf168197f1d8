"""Classical codecs through Pillow, measured on the same images in the same run as the learned ones.

Settings are those a person would use who cares about size, and stay the same over the whole ladder:

    jpeg           4:2:0, optimized Huffman tables, progressive scans (about 6 % smaller than `jpeg-baseline`)
    jpeg-baseline  Pillow's defaults: 4:2:0, standard Huffman tables, sequential
    jpeg2000       9/7 wavelet, colour transform, one tile; the quality is a target in bpp, the same for all
    images webp           lossy VP8, 4:2:0 (the format knows no other), method 6, Pillow's slowest
    avif           AV1 by libaom, 4:2:0, full range, speed 6, one thread: Pillow's defaults
    avif-444       the same without chroma subsampling

Files carry no metadata. 4:2:0 costs PSNR on RGB at high rates; that is what these formats are by default.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import PIL
from PIL import Image, features


@dataclass(frozen=True)
class Anchor:
    """A classical codec with fixed settings and a ladder of qualities.

    pillow_format: Pillow's name of the file format; `suffix` that of the files.
    pillow_feature: what `PIL.features` calls the library that does the work.
    settings: what a person must know to repeat it.
    options: a function from a rung of the ladder to the arguments of `Image.save`.
    ladder: qualities that cover about 0.1…1.5 bpp on photographs of 768×512, as far as the format can.
    """

    name: str
    pillow_format: str
    suffix: str
    pillow_feature: str
    settings: str
    options: Callable[[float], dict]
    ladder: tuple[float, ...]

    def encode(self, image: Image.Image, quality: float) -> bytes:
        """The bytes of a whole file."""
        buffer = io.BytesIO()
        image.save(buffer, self.pillow_format, **self.options(quality))
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        """Pixels of a file made by `encode`, mode RGB."""
        with Image.open(io.BytesIO(data), formats=(self.pillow_format,)) as image:
            return image.convert("RGB")

    def version(self) -> str:
        """Versions that decide the bytes, for example `Pillow 12.0.0, libavif 1.3.0`."""
        return f"Pillow {PIL.__version__}, {self.pillow_feature} {features.version(self.pillow_feature)}"

    def available(self) -> bool:
        """Whether this Pillow was built with the format."""
        return bool(features.check(self.pillow_feature))


def _jpeg(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:2:0", "optimize": True, "progressive": True}


def _jpeg_baseline(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:2:0"}


def _jpeg2000(bits_per_pixel: float) -> dict:
    # OpenJPEG takes a compression ratio against 24-bit RGB. Pillow leaves the colour transform (mct) out
    # unless asked, which loses more than 2 dB.
    ratio = 24 / bits_per_pixel
    return {"irreversible": True, "mct": 1, "quality_mode": "rates", "quality_layers": [ratio]}


def _webp(quality: float) -> dict:
    return {"quality": int(quality), "method": 6}


def _avif(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:2:0", "speed": 6, "max_threads": 1}


def _avif_444(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:4:4", "speed": 6, "max_threads": 1}


_JPEG_LADDER = (1, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90)
_AVIF_LADDER = (10, 20, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85)

ANCHORS = {
    anchor.name: anchor
    for anchor in (
        Anchor("jpeg", "JPEG", ".jpg", "jpg", "4:2:0, optimized, progressive", _jpeg, _JPEG_LADDER),
        Anchor(
            "jpeg-baseline", "JPEG", ".jpg", "jpg", "4:2:0, Pillow defaults", _jpeg_baseline, _JPEG_LADDER
        ),
        Anchor(
            "jpeg2000",
            "JPEG2000",
            ".jp2",
            "jpg_2000",
            "9/7 wavelet, colour transform, target rate",
            _jpeg2000,
            (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5),
        ),
        Anchor(
            "webp",
            "WEBP",
            ".webp",
            "webp",
            "lossy, 4:2:0, method 6",
            _webp,
            (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90),
        ),
        Anchor("avif", "AVIF", ".avif", "avif", "4:2:0, speed 6", _avif, _AVIF_LADDER),
        Anchor("avif-444", "AVIF", ".avif", "avif", "4:4:4, speed 6", _avif_444, _AVIF_LADDER),
    )
}
"""Every anchor by name."""

DEFAULT_ANCHORS = ("jpeg", "jpeg2000", "webp", "avif")
