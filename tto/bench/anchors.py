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
    feature, library: what `PIL.features` calls the format, and the library whose version counts.
    settings: what a person must know to repeat it.
    options: a function from a rung of the ladder to the arguments of `Image.save`.
    ladder: qualities that cover about 0.1…1.5 bpp on photographs of 768×512, as far as the format can.
    """

    name: str
    pillow_format: str
    suffix: str
    feature: str
    library: str
    settings: str
    options: Callable[[float], dict]
    ladder: tuple[float, ...]

    def encode(self, image: Image.Image, quality: float) -> bytes:
        """The bytes of a whole file with the image's colours and nothing else."""
        bare, buffer = image.convert("RGB"), io.BytesIO()
        bare.info = {}
        bare.save(buffer, self.pillow_format, **self.options(quality))
        return buffer.getvalue()

    def decode(self, data: bytes) -> Image.Image:
        """Pixels of a file made by `encode`, mode RGB."""
        with Image.open(io.BytesIO(data), formats=(self.pillow_format,)) as image:
            return image.convert("RGB")

    def version(self) -> str:
        """Versions that decide the bytes, for example `Pillow 12.0.0, webp 1.6.0`."""
        return f"Pillow {PIL.__version__}, {self.library} {features.version(self.library)}"

    def available(self) -> bool:
        """Whether this Pillow was built with the format."""
        return bool(features.check(self.feature))


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
        Anchor(
            name="jpeg",
            pillow_format="JPEG",
            suffix=".jpg",
            feature="jpg",
            library="libjpeg_turbo",
            settings="4:2:0, optimized, progressive",
            options=_jpeg,
            ladder=_JPEG_LADDER,
        ),
        Anchor(
            name="jpeg-baseline",
            pillow_format="JPEG",
            suffix=".jpg",
            feature="jpg",
            library="libjpeg_turbo",
            settings="4:2:0, Pillow defaults",
            options=_jpeg_baseline,
            ladder=_JPEG_LADDER,
        ),
        Anchor(
            name="jpeg2000",
            pillow_format="JPEG2000",
            suffix=".jp2",
            feature="jpg_2000",
            library="jpg_2000",
            settings="9/7 wavelet, colour transform, target rate",
            options=_jpeg2000,
            ladder=(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5),
        ),
        Anchor(
            name="webp",
            pillow_format="WEBP",
            suffix=".webp",
            feature="webp",
            library="webp",
            settings="lossy, 4:2:0, method 6",
            options=_webp,
            ladder=(0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90),
        ),
        Anchor(
            name="avif",
            pillow_format="AVIF",
            suffix=".avif",
            feature="avif",
            library="avif",
            settings="4:2:0, speed 6",
            options=_avif,
            ladder=_AVIF_LADDER,
        ),
        Anchor(
            name="avif-444",
            pillow_format="AVIF",
            suffix=".avif",
            feature="avif",
            library="avif",
            settings="4:4:4, speed 6",
            options=_avif_444,
            ladder=_AVIF_LADDER,
        ),
    )
}
"""Every anchor by name."""
