"""VMAF (Netflix, model 0.6.1) by libvmaf within ffmpeg."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tto.bench.ffmpeg import missing, run_ffmpeg
from tto.errors import NotInstalled

BT709 = np.array([0.2126, 0.7152, 0.0722])
BLACK, RANGE = 16, 219  # of luma in 8 bits, limited range
NEUTRAL = 128


def load_vmaf() -> Callable[[np.ndarray, np.ndarray], float]:
    """`vmaf`. Raises `NotInstalled`."""
    if reason := missing("filters", "libvmaf"):
        raise NotInstalled(f"vmaf: {reason}")
    return vmaf


def vmaf(original: np.ndarray, decoded: np.ndarray) -> float:
    """VMAF of uint8 pixels [H, W, 3], about 0…100, as of a video of one frame.

    It looks at luma alone: BT.709, limited range, 8 bits.
    """
    height, width = original.shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        sources: list[str | Path] = []
        for name, pixels in (("decoded", decoded), ("original", original)):  # the order that the filter wants
            path = Path(folder) / f"{name}.yuv"
            path.write_bytes(luma(pixels).tobytes() + bytes([NEUTRAL]) * (2 * height * width))
            sources += ["-f", "rawvideo", "-pix_fmt", "yuv444p", "-s", f"{width}x{height}", "-i", path]
        said, _ = run_ffmpeg([*sources, "-lavfi", "libvmaf=model=version=vmaf_v0.6.1:n_threads=1", "-f", "null", "-"])
    score = re.search(r"VMAF score: ([-\d.]+)", said)
    assert score is not None
    return float(score[1])


def luma(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] → uint8 [H, W]."""
    return np.round(BLACK + RANGE / 255 * (pixels @ BT709)).astype(np.uint8)
