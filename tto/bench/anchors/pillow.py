"""Anchors that Pillow encodes and decodes, some by a plugin.

    jpeg           4:2:0, optimized Huffman tables, progressive scans (about 6 % smaller than `jpeg-baseline`)
    jpeg-baseline  Pillow's defaults: 4:2:0, standard Huffman tables, sequential
    jpeg2000       9/7 wavelet, colour transform, one tile; the quality is a target in bpp, the same for all images
    webp           lossy VP8, 4:2:0 (the format knows no other), method 6, Pillow's slowest
    avif           AV1 by libaom, 4:2:0, full range, speed 6, one thread: Pillow's defaults
    avif-444       the same without chroma subsampling
    jxl            JPEG XL by libjxl, XYB, effort 7 (its default), one thread

4:2:0 costs PSNR on RGB at high rates; that is what these formats are by default.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import PIL
from PIL import Image, features

from tto.bench.anchors.anchor import Anchor
from tto.bench.encoded import Encoded


@dataclass(frozen=True)
class PillowAnchor(Anchor):
    """pillow_format: Pillow's name of the file format; options: from a rung of the ladder to arguments of `Image.save`.

    feature, library: what `PIL.features` calls the format, and the library whose version counts.
    """

    pillow_format: str
    options: Callable[[float], dict]
    feature: str = ""
    library: str = ""

    def encode(self, image: Image.Image, quality: float) -> Encoded:
        bare, buffer = image.convert("RGB"), io.BytesIO()
        bare.info = {}
        bare.save(buffer, self.pillow_format, **self.options(quality))
        return Encoded(buffer.getvalue())

    def decode(self, data: bytes) -> Image.Image:
        with Image.open(io.BytesIO(data), formats=(self.pillow_format,)) as image:
            return image.convert("RGB")

    def version(self) -> str:
        return f"Pillow {PIL.__version__}, {self.library} {features.version(self.library)}"

    def missing(self) -> str:
        return "" if features.check(self.feature) else f"this Pillow was built without {self.feature}"


@dataclass(frozen=True)
class PluginAnchor(PillowAnchor):
    """A format that a package adds to Pillow. package: as pip calls it; module: as Python does."""

    package: str = ""
    module: str = ""

    def encode(self, image: Image.Image, quality: float) -> Encoded:
        import_module(self.module)  # registers the format
        return super().encode(image, quality)

    def decode(self, data: bytes) -> Image.Image:
        import_module(self.module)
        return super().decode(data)

    def version(self) -> str:
        return f"{self.package} {version(self.package)}"

    def missing(self) -> str:
        return (
            "" if find_spec(self.module) else f"the package {self.package} is not installed: pip install 'tto[bench]'"
        )


def _jpeg(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:2:0", "optimize": True, "progressive": True}


def _jpeg_baseline(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:2:0"}


def _jpeg2000(bits_per_pixel: float) -> dict:
    # OpenJPEG takes a compression ratio against 24-bit RGB. Pillow leaves the colour transform (mct) out
    # unless asked, which loses more than 2 dB.
    ratio = 24 / bits_per_pixel
    return {"no_jp2": True, "irreversible": True, "mct": 1, "quality_mode": "rates", "quality_layers": [ratio]}


def _webp(quality: float) -> dict:
    return {"quality": int(quality), "method": 6}


def _avif(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:2:0", "speed": 6, "max_threads": 1}


def _avif_444(quality: float) -> dict:
    return {"quality": int(quality), "subsampling": "4:4:4", "speed": 6, "max_threads": 1}


def _jxl(quality: float) -> dict:
    return {"quality": float(quality), "effort": 7, "use_container": False, "num_threads": 0}


_JPEG_LADDER = (1, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90)
_AVIF_LADDER = (10, 20, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85)

_JXL_LADDER = (5, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 93)

PILLOW_ANCHORS = (
    PillowAnchor(
        name="jpeg",
        suffix=".jpg",
        chroma="4:2:0",
        settings="optimized, progressive",
        container="the JFIF file",
        ladder=_JPEG_LADDER,
        pillow_format="JPEG",
        options=_jpeg,
        feature="jpg",
        library="libjpeg_turbo",
    ),
    PillowAnchor(
        name="jpeg-baseline",
        suffix=".jpg",
        chroma="4:2:0",
        settings="Pillow defaults",
        container="the JFIF file",
        ladder=_JPEG_LADDER,
        pillow_format="JPEG",
        options=_jpeg_baseline,
        feature="jpg",
        library="libjpeg_turbo",
    ),
    PillowAnchor(
        name="jpeg2000",
        suffix=".j2k",
        chroma="4:4:4",
        settings="9/7 wavelet, colour transform, target rate",
        container="the bare codestream",
        ladder=(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5),
        pillow_format="JPEG2000",
        options=_jpeg2000,
        feature="jpg_2000",
        library="jpg_2000",
    ),
    PillowAnchor(
        name="webp",
        suffix=".webp",
        chroma="4:2:0",
        settings="lossy, method 6",
        container="the simple RIFF file",
        ladder=(0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90),
        pillow_format="WEBP",
        options=_webp,
        feature="webp",
        library="webp",
    ),
    PillowAnchor(
        name="avif",
        suffix=".avif",
        chroma="4:2:0",
        settings="speed 6",
        container="the AVIF file",
        ladder=_AVIF_LADDER,
        pillow_format="AVIF",
        options=_avif,
        feature="avif",
        library="avif",
    ),
    PillowAnchor(
        name="avif-444",
        suffix=".avif",
        chroma="4:4:4",
        settings="speed 6",
        container="the AVIF file",
        ladder=_AVIF_LADDER,
        pillow_format="AVIF",
        options=_avif_444,
        feature="avif",
        library="avif",
    ),
    PluginAnchor(
        name="jxl",
        suffix=".jxl",
        chroma="4:4:4",
        settings="lossy XYB, effort 7",
        container="the bare codestream",
        ladder=_JXL_LADDER,
        pillow_format="JXL",
        options=_jxl,
        package="pillow-jxl-plugin",
        module="pillow_jxl",
    ),
)
