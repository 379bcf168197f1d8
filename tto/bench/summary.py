"""One line per curve: how it compares with the anchors, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from tto.bench.bdrate import BDRate
from tto.bench.curves import Curve, compare
from tto.bench.published import REFERENCES

UNREFINED = "none"


@dataclass(frozen=True)
class SummaryLine:
    """A curve in one line.

    bd_rate: against each reference by name, on PSNR; bd_rate_ms_ssim: the same on MS-SSIM in dB, where both
    have it. against_none: against the same codec at effort none, on PSNR.
    J_gain: how much lower the mean J is than at effort none, in percent, `nan` where there is none.
    encode_seconds, decode_seconds: means over all files; peak_memory_mb: the largest.
    """

    curve: Curve
    bd_rate: dict[str, BDRate]
    bd_rate_ms_ssim: dict[str, BDRate]
    against_none: BDRate
    J_gain: float
    encode_seconds: float
    decode_seconds: float
    peak_memory_mb: float


def references(curves: Sequence[Curve]) -> list[Curve]:
    """What BD-rates are taken against: the anchors measured here, then VTM and BPG as published."""
    anchors = [curve for curve in curves if curve.is_anchor]
    return anchors + [curve for curve in curves if curve.source and curve.codec in REFERENCES]


def summarize(curves: Sequence[Curve]) -> list[SummaryLine]:
    """A line for every curve, measured or published."""
    against = references(curves)
    return [_line(curve, curves, against) for curve in curves]


def _line(curve: Curve, curves: Sequence[Curve], against: Sequence[Curve]) -> SummaryLine:
    unrefined = next((c for c in curves if c.codec == curve.codec and c.effort == UNREFINED), None)
    base = unrefined if curve.effort and unrefined is not curve else None  # of a curve that is refined
    return SummaryLine(
        curve=curve,
        bd_rate={other.label: compare(other, curve) for other in against if other is not curve},
        bd_rate_ms_ssim=_on_ms_ssim(curve, against),
        against_none=compare(base, curve) if base else BDRate(math.nan, math.nan, math.nan, 0.0),
        J_gain=_gain(base, curve) if base else math.nan,
        encode_seconds=_mean(curve.values("encode_seconds")),
        decode_seconds=_mean(curve.values("decode_seconds")),
        peak_memory_mb=max(curve.values("peak_memory_mb"), default=math.nan),
    )


def _on_ms_ssim(curve: Curve, against: Sequence[Curve]) -> dict[str, BDRate]:
    found = {other.label: compare(other, curve, "ms_ssim_db") for other in against if other is not curve}
    return {label: bd for label, bd in found.items() if math.isfinite(bd.percent)}


def _gain(unrefined: Curve, refined: Curve) -> float:
    """Percent by which J falls, averaged over the qualities that both have."""
    base = {point.quality: point.J for point in unrefined.points}
    pairs = [(base[point.quality], point.J) for point in refined.points if point.quality in base]
    return _mean([100 * (1 - after / before) for before, after in pairs])


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
