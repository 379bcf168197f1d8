"""Still pictures by video codecs, through ffmpeg.

    hevc       x265, 4:4:4, 10 bits, preset slower, tuned for PSNR, constant QP: what BPG is
    vvc        VVenC, preset medium, 10 bits, constant QP; it codes 4:2:0 only, which costs PSNR on RGB at high rates
    vvc-slow   the same with preset slow

    RGB ─ YCbCr (BT.601, full range, 8 bits), once ─ [chroma halved] ─ encoder ─ bitstream ─ decoder ─ and back

YCbCr has 8 bits, as in JPEG, WebP, AVIF and the published curve of BPG; encoders and decoders compute in 10. Bitstreams
are bare (Annex B) with the parameter sets that a decoder needs and nothing else. One thread.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tto.bench.anchors.anchor import Anchor
from tto.bench.encoded import Encoded
from tto.bench.ffmpeg import encoder_version, ffmpeg_version, missing, run_ffmpeg

HIGHEST = 255  # of 8 bits
MIDDLE = 128
WIDER = 4  # a sample of 10 bits for one of 8
BT601 = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
"""RGB to luma and the two chroma differences, ITU-R BT.601."""


@dataclass(frozen=True)
class VideoAnchor(Anchor):
    """encoder, decoder, muxer: as ffmpeg calls them; options: of the encoder, with `{qp}`.

    subsampled: whether chroma has half the width and height. Zero bytes after the stream, which its syntax allows, then
    say which sides were odd: 1 the width, 2 the height, 3 both.
    """

    encoder: str
    decoder: str
    muxer: str
    options: tuple[str, ...]
    subsampled: bool = False

    @property
    def pixel_format(self) -> str:
        return "yuv420p10le" if self.subsampled else "yuv444p10le"

    def encode(self, image: Image.Image, quality: float) -> Encoded:
        planes, odd = to_planes(np.asarray(image.convert("RGB")), self.subsampled)
        height, width = planes[0].shape
        with tempfile.TemporaryDirectory() as folder:
            raw, stream = Path(folder) / "in.yuv", Path(folder) / "out"
            raw.write_bytes(b"".join((WIDER * plane).astype("<u2").tobytes() for plane in planes))
            source = ["-f", "rawvideo", "-pix_fmt", self.pixel_format, "-s", f"{width}x{height}", "-i", raw]
            options = [option.format(qp=f"{quality:g}") for option in self.options]
            _, memory = run_ffmpeg([*source, "-c:v", self.encoder, *options, "-threads", "1", "-f", self.muxer, stream])
            return Encoded(stream.read_bytes() + bytes(odd), peak_memory_mb=memory)

    def decode(self, data: bytes) -> Image.Image:
        odd = len(data) - len(data.rstrip(b"\0")) if self.subsampled else 0
        with tempfile.TemporaryDirectory() as folder:
            raw, stream = Path(folder) / "out.yuv", Path(folder) / "in"
            stream.write_bytes(data)
            source = ["-threads", "1", "-c:v", self.decoder, "-f", self.muxer, "-i", stream]
            said, _ = run_ffmpeg([*source, "-f", "rawvideo", "-pix_fmt", self.pixel_format, raw])
            size = re.search(r"Video: .*?, (\d+)x(\d+)", said)
            assert size is not None
            width, height = map(int, size.groups())
            samples = np.clip(np.round(np.frombuffer(raw.read_bytes(), "<u2") / WIDER), 0, HIGHEST)
        pixels = from_planes(samples, height, width, self.subsampled)
        return Image.fromarray(np.ascontiguousarray(pixels[: height - (odd >> 1), : width - (odd & 1)]))

    def version(self) -> str:
        return f"{ffmpeg_version()}, {encoder_version(self.encoder)}"

    def missing(self) -> str:
        return missing("encoders", self.encoder) or missing("decoders", self.decoder)


def to_planes(rgb: np.ndarray, subsampled: bool) -> tuple[list[np.ndarray], int]:
    """uint8 [H, W, 3] → Y, Cb and Cr in 0…255, [H, W] or chroma of half of both, and which sides were odd.

    Odd sides are made even by repeating the edge where chroma is halved: 1 stands for the width, 2 for the height.
    """
    height, width = rgb.shape[:2]
    odd = (width % 2) + 2 * (height % 2) if subsampled else 0
    if odd:
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    planes = list(np.moveaxis(rgb / 255 @ BT601.T, 2, 0))
    if subsampled:
        planes[1:] = [_resized(plane, rgb.shape[1] // 2, rgb.shape[0] // 2) for plane in planes[1:]]
    levels = [HIGHEST * planes[0], *(HIGHEST * plane + MIDDLE for plane in planes[1:])]
    return [np.clip(np.round(level), 0, HIGHEST) for level in levels], odd


def from_planes(samples: np.ndarray, height: int, width: int, subsampled: bool) -> np.ndarray:
    """Samples in 0…255, plane after plane → uint8 [H, W, 3]."""
    chroma = (height // 2, width // 2) if subsampled else (height, width)
    luma, *differences = np.split(samples, np.cumsum([height * width, chroma[0] * chroma[1]]))
    planes = [(plane.reshape(chroma) - MIDDLE) / HIGHEST for plane in differences]
    if subsampled:
        planes = [_resized(plane, width, height) for plane in planes]
    rgb = np.stack([luma.reshape(height, width) / HIGHEST, *planes], axis=2) @ np.linalg.inv(BT601).T
    return np.clip(np.round(255 * rgb), 0, 255).astype(np.uint8)


def _resized(plane: np.ndarray, width: int, height: int) -> np.ndarray:
    """Chroma samples lie in the middle of the pixels they stand for."""
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS))


_VVC = ("-qp", "{qp}", "-qpa", "0", "-bsf:v", "filter_units=remove_types=20")  # 20: delimiters
_COLOUR = "YCbCr BT.601 full range of 8 bits"
_VVC_SETTINGS = f"10 bits, constant QP, not perceptual; {_COLOUR}, chroma by Lanczos"
_VVC_LADDER = (22, 25, 27, 30, 32, 35, 37, 40, 42, 45, 47)

VIDEO_ANCHORS = (
    VideoAnchor(
        name="hevc",
        suffix=".265",
        chroma="4:4:4",
        settings=f"10 bits, preset slower, tune psnr, constant QP; {_COLOUR}",
        container="the bare Annex B stream",
        ladder=(18, 20, 22, 25, 27, 30, 32, 35, 37, 40, 42),
        encoder="libx265",
        decoder="hevc",
        muxer="hevc",
        options=(
            "-preset",
            "slower",
            "-tune",
            "psnr",
            "-x265-params",
            "qp={qp}:ipratio=1:keyint=1:info=0:hash=0:aud=0:pools=none:frame-threads=1:wpp=0:log-level=error",
        ),
    ),
    VideoAnchor(
        name="vvc",
        suffix=".266",
        chroma="4:2:0",
        settings=f"preset medium, {_VVC_SETTINGS}",
        container="the bare Annex B stream",
        ladder=_VVC_LADDER,
        encoder="libvvenc",
        decoder="vvc",
        muxer="vvc",
        options=("-preset", "medium", *_VVC),
        subsampled=True,
    ),
    VideoAnchor(
        name="vvc-slow",
        suffix=".266",
        chroma="4:2:0",
        settings=f"preset slow, {_VVC_SETTINGS}",
        container="the bare Annex B stream",
        ladder=_VVC_LADDER,
        encoder="libvvenc",
        decoder="vvc",
        muxer="vvc",
        options=("-preset", "slow", *_VVC),
        subsampled=True,
    ),
)
