"""Landing on a wanted rate or PSNR: a search over quality and quantization step.

Both are one number s: from 1 to Q it is the quality itself; below and above it goes on with a coarser or finer step at
the lowest or highest quality, as many table entries as keep the rate falling or rising about as fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tto.container import NEUTRAL_QP, QUALITY_STEPS
from tto.errors import BadArgument, TargetMissed

BPP_TOLERANCE = 0.01  # relative
PSNR_TOLERANCE = 0.05  # dB
MOST_ATTEMPTS = 12
BPP_SLOPE = 0.35
"""Growth of log bpp per unit of quality, and…"""
PSNR_SLOPE = 1.2
"""… of PSNR in dB: where the search looks before it knows better."""
QP_PER_QUALITY = 16
BEYOND = 4.0
"""How far s may leave the range of qualities: two octaves of the step."""


class Measured(Protocol):
    bpp: float
    psnr: float


Result = TypeVar("Result", bound=Measured)


@dataclass(frozen=True)
class Target:
    """A wanted value on an axis where quality acts about linearly: log bpp, or PSNR in dB."""

    value: float
    tolerance: float
    slope: float
    of: Callable[[Measured], float]
    name: str


def make_target(bpp: float | None, psnr: float | None) -> Target | None:
    """Raises `BadArgument` for two targets, or one without meaning."""
    if bpp is not None and psnr is not None:
        raise BadArgument("give a target for bpp or for PSNR, not both")
    if bpp is not None:
        if not 0 < bpp < math.inf:
            raise BadArgument(f"the target must be a positive number of bits per pixel, got {bpp:g}")
        tolerance = math.log1p(BPP_TOLERANCE) * 0.98
        return Target(math.log(bpp), tolerance, BPP_SLOPE, lambda result: math.log(result.bpp), f"{bpp:g} bpp")
    if psnr is not None:
        if not 0 < psnr < math.inf:
            raise BadArgument(f"the target must be a positive number of dB, got {psnr:g}")
        return Target(psnr, PSNR_TOLERANCE, PSNR_SLOPE, lambda result: result.psnr, f"{psnr:g} dB")
    return None


def operating_point(s: float, qualities: int) -> tuple[float, int]:
    """Quality and qp of s."""
    quality = min(max(s, 1.0), float(qualities))
    return quality, NEUTRAL_QP - round(QP_PER_QUALITY * (s - quality))


def search(
    attempt: Callable[[float, int], Result],
    target: Target,
    start: float,
    qualities: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Result:
    """The first result of `attempt(quality, qp)` within the target's tolerance, or the nearest when told to stop.

    Regula falsi (Illinois) between the closest values below and above, by the usual slope until there are both.
    Raises `TargetMissed` with the nearest value found.
    """
    low_end, high_end = 1.0 - BEYOND, qualities + BEYOND
    below: tuple[float, float] | None = None  # s and its miss, negative
    above: tuple[float, float] | None = None
    s, nearest = start, None
    for _ in range(MOST_ATTEMPTS):
        result = attempt(*operating_point(s, qualities))
        miss = target.of(result) - target.value
        if nearest is None or abs(miss) < abs(target.of(nearest) - target.value):
            nearest = result
        if abs(miss) <= target.tolerance or should_stop():
            return nearest
        if miss < 0:
            below, above = (s, miss), above and (above[0], above[1] / 2 if below else above[1])
        else:
            above, below = (s, miss), below and (below[0], below[1] / 2 if above else below[1])
        if below and above:
            following = below[0] + (above[0] - below[0]) * -below[1] / (above[1] - below[1])
        else:
            following = min(max(s - miss / target.slope, low_end), high_end)
        if round(following * QUALITY_STEPS) == round(s * QUALITY_STEPS):
            break
        s = following
    raise TargetMissed(f"no file of {target.name}: the nearest has {nearest.bpp:.4f} bpp and {nearest.psnr:.2f} dB")
