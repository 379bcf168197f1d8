"""What a decoded picture can be scored by. A metric is one entry here: columns, BD-rates and plots follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from tto.bench.vmaf import load_vmaf
from tto.errors import BadArgument
from tto.metrics import ms_ssim, ms_ssim_db, psnr, ssimulacra2
from tto.packages import require

Score = Callable[[np.ndarray, np.ndarray], float]
"""Of original and decoded uint8 pixels [H, W, 3]; `nan` where a picture is too small for it."""


@dataclass(frozen=True)
class Metric:
    """title: of a column of values, with their unit; digits: decimals of a value.

    load: the function, or `NotInstalled`; on_axis: mean value → a scale that rises with quality, along which curves are
    drawn and compared; axis: name of that scale.
    """

    title: str
    digits: int
    load: Callable[[], Score]
    axis: str
    on_axis: Callable[[float], float] = float


def distance_db(value: float) -> float:
    """A distance on a scale that rises with quality: −10·log₁₀(value) dB; `inf` for 0."""
    return math.inf if value <= 0 else -10 * math.log10(value)


def _ssimulacra2() -> Score:
    require("ssimulacra2", "bench")
    return ssimulacra2


def _network(name: str) -> Callable[[], Score]:
    def load() -> Score:
        from tto.perceptual import load_distance, score_pixels  # here because torch takes a while

        distance = load_distance(name)
        return lambda original, decoded: score_pixels(distance, original, decoded)

    return load


METRICS = {
    "psnr": Metric("PSNR dB", 2, lambda: psnr, "PSNR (dB)"),
    "ms_ssim": Metric("MS-SSIM", 4, lambda: ms_ssim, "MS-SSIM (dB)", ms_ssim_db),
    "ssimulacra2": Metric("SSIMULACRA2", 2, _ssimulacra2, "SSIMULACRA2"),
    "vmaf": Metric("VMAF", 2, load_vmaf, "VMAF"),
    "lpips": Metric("LPIPS", 4, _network("lpips"), "LPIPS (dB)", distance_db),
    "dists": Metric("DISTS", 4, _network("dists"), "DISTS (dB)", distance_db),
}
"""By the name of their column."""
ALWAYS = ("psnr", "ms_ssim")
ON_REQUEST = tuple(name for name in METRICS if name not in ALWAYS)

AXES = (
    "A point of a curve is the mean of the images' bpp and the mean of their scores (of PSNR in dB, not the PSNR of "
    "the mean error); MS-SSIM in dB is −10·log10(1 − mean MS-SSIM), LPIPS and DISTS in dB −10·log10 of their mean."
)


@cache
def load_score(name: str) -> Score:
    """A metric's function, loaded once per process. Raises `NotInstalled`."""
    return METRICS[name].load()


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Those that are measured always and those asked for. Raises `BadArgument` or `NotInstalled` before any work."""
    for name in names:
        if name not in METRICS:
            raise BadArgument(f"unknown metric {name!r}: {', '.join(ON_REQUEST)}")
        load_score(name)
    return tuple(dict.fromkeys((*ALWAYS, *names)))
