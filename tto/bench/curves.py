"""From rows to curves: means over the images of a set, as the field reports them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from tto.bench.bdrate import BDRate, compare_curves
from tto.bench.rows import Row
from tto.metrics import ms_ssim_db

MEAN_CONVENTION = (
    "A point of a curve is the mean of the images' bpp and the mean of their PSNR in dB (not the PSNR of the "
    "mean error); MS-SSIM in dB is −10·log10(1 − mean MS-SSIM)."
)


@dataclass(frozen=True)
class Point:
    """Means over all images at one quality. Units as in `Row`; a figure that one image lacks is `nan`."""

    quality: float
    bpp: float
    psnr: float
    ms_ssim: float
    J: float
    encode_seconds: float
    decode_seconds: float
    peak_memory_mb: float

    @property
    def ms_ssim_db(self) -> float:
        return ms_ssim_db(self.ms_ssim)


@dataclass(frozen=True)
class Curve:
    """One codec at one effort on a set of images, points from low to high rate.

    source: where published figures come from; empty for a curve measured here.
    """

    codec: str
    effort: str
    label: str
    points: tuple[Point, ...]
    source: str = ""

    @property
    def is_anchor(self) -> bool:
        """A classical codec measured here."""
        return not self.effort and not self.source

    def values(self, name: str) -> list[float]:
        """One figure at every point: the name of a field or property of `Point`."""
        return [getattr(point, name) for point in self.points]


def mean_curves(rows: Iterable[Row]) -> list[Curve]:
    """One curve per codec and effort, in order of appearance.

    Only qualities measured on every image of the curve are points, so that all points average the same
    images.
    """
    by_label: dict[str, list[Row]] = {}
    for row in rows:
        by_label.setdefault(row.label, []).append(row)
    return [Curve(group[0].codec, group[0].effort, label, _mean_points(group)) for label, group in by_label.items()]


def compare(anchor: Curve, curve: Curve, quality: str = "psnr") -> BDRate:
    """BD-rate of `curve` against `anchor`; `quality` is psnr or ms_ssim_db."""
    return compare_curves(anchor.values("bpp"), anchor.values(quality), curve.values("bpp"), curve.values(quality))


def _mean_points(rows: Sequence[Row]) -> tuple[Point, ...]:
    images = {row.image for row in rows}
    points = []
    for quality, group in groupby(sorted(rows, key=lambda row: row.quality), lambda row: row.quality):
        group = list(group)
        if {row.image for row in group} == images:
            points.append(_mean_point(quality, group))
    return tuple(sorted(points, key=lambda point: point.bpp))


def _mean_point(quality: float, rows: Sequence[Row]) -> Point:
    return Point(
        quality=quality,
        bpp=fmean(row.bpp for row in rows),
        psnr=fmean(row.psnr for row in rows),
        ms_ssim=fmean(row.ms_ssim for row in rows),
        J=fmean(row.J for row in rows),
        encode_seconds=fmean(row.encode_seconds for row in rows),
        decode_seconds=fmean(row.decode_seconds for row in rows),
        peak_memory_mb=max((row.peak_memory_mb for row in rows), default=math.nan),
    )
