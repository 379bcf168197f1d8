"""Bjontegaard delta rate: the average difference in bits between two rate–distortion curves at equal quality.

The `bjontegaard` package does the arithmetic with piecewise cubic (PCHIP) interpolation of log-rate over
quality. The comparison covers only the qualities that both curves reach; `overlap` says how much of them
that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BDRate:
    """One comparison of two curves.

    percent: bits saved (negative) or lost (positive) at equal quality; `nan` where the curves do not overlap.
    low, high: the common range of quality in dB.
    overlap: that range as a share of the narrower curve's own, 0…1: how much of it the figure speaks of.
    """

    percent: float
    low: float
    high: float
    overlap: float


def compare_curves(
    anchor_bpp: Sequence[float], anchor_psnr: Sequence[float], bpp: Sequence[float], psnr: Sequence[float]
) -> BDRate:
    """Rate of the curve (bpp, psnr) against the anchor curve. Points in any order; quality in dB.

    The curves may have different numbers of points. Points that are not finite (a lossless one has infinite
    PSNR) are left out, and of two points with one quality the cheaper stays. A curve left with fewer than
    two points gives `nan`. Raises ValueError for lists of unequal length and for a rate that is not positive.
    """
    anchor = _clean_curve(anchor_bpp, anchor_psnr)
    test = _clean_curve(bpp, psnr)
    if len(anchor) < 2 or len(test) < 2:
        return BDRate(math.nan, math.nan, math.nan, 0.0)
    low, high = max(anchor[0][1], test[0][1]), min(anchor[-1][1], test[-1][1])
    narrower = min(anchor[-1][1] - anchor[0][1], test[-1][1] - test[0][1])
    if high <= low:
        return BDRate(math.nan, low, high, 0.0)
    import bjontegaard  # here because it imports pyplot

    percent: Any = bjontegaard.bd_rate(
        *np.array(anchor).T,
        *np.array(test).T,
        method="pchip",
        require_matching_points=False,
        min_overlap=0,
    )
    return BDRate(float(percent), low, high, (high - low) / narrower)


def bd_rate(
    anchor_bpp: Sequence[float], anchor_psnr: Sequence[float], bpp: Sequence[float], psnr: Sequence[float]
) -> float:
    """`compare_curves(...).percent`: negative where the curve needs fewer bits than the anchor."""
    return compare_curves(anchor_bpp, anchor_psnr, bpp, psnr).percent


def _clean_curve(rates: Sequence[float], qualities: Sequence[float]) -> list[tuple[float, float]]:
    """Finite points sorted by quality, each quality once."""
    if len(rates) != len(qualities):
        raise ValueError(f"{len(rates)} rates but {len(qualities)} qualities")
    points = [
        (float(rate), float(quality))
        for rate, quality in zip(rates, qualities, strict=True)
        if math.isfinite(rate) and math.isfinite(quality)
    ]
    if any(rate <= 0 for rate, _ in points):
        raise ValueError("a rate must be positive")
    cheapest: dict[float, float] = {}
    for rate, quality in points:
        cheapest[quality] = min(rate, cheapest.get(quality, math.inf))
    return [(cheapest[quality], quality) for quality in sorted(cheapest)]
