"""From rows to curves: means over the images of a set, as the field reports them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from tto.bench.bdrate import BDRate, compare_curves
from tto.bench.rows import Row
from tto.bench.scores import METRICS


@dataclass(frozen=True)
class Point:
    """Means over all images at one quality. Units as in `Row`; a figure that one image lacks is `nan`."""

    quality: float
    bpp: float
    scores: Mapping[str, float]
    J: float
    encode_seconds: float
    decode_seconds: float
    peak_memory_mb: float

    def on_axis(self, metric: str) -> float:
        """A score on the scale that curves of it are compared on; `nan` where it was not measured."""
        return METRICS[metric].on_axis(self.scores.get(metric, math.nan))


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
        """One figure at every point: the name of a field of `Point`."""
        return [getattr(point, name) for point in self.points]

    def on_axis(self, metric: str) -> list[float]:
        """One score at every point, on its axis."""
        return [point.on_axis(metric) for point in self.points]

    def has(self, metric: str) -> bool:
        """Whether it can be compared by this metric."""
        return any(math.isfinite(value) for value in self.on_axis(metric))


def published_point(bpp: float, psnr: float) -> Point:
    """A point of which nothing else is known."""
    return Point(math.nan, bpp, {"psnr": psnr}, math.nan, math.nan, math.nan, math.nan)


def mean_curves(rows: Iterable[Row]) -> list[Curve]:
    """One curve per codec and effort, in order of appearance.

    Only qualities measured on every image of all the rows are points, so that all points of all curves average the
    same images: where one failed, its quality is left out.
    """
    groups = by_label(rows)
    images = {row.image for group in groups.values() for row in group}
    return [
        Curve(group[0].codec, group[0].effort, label, _mean_points(group, images)) for label, group in groups.items()
    ]


def lossless(rows: Iterable[Row]) -> dict[str, Row]:
    """Images by name that some codec gives back exactly, with the first such row: their PSNR has no mean with others.

    Empty where there are no other images.
    """
    rows = list(rows)
    found = {row.image: row for row in reversed(rows) if math.isinf(row.scores.get("psnr", math.nan))}
    return {} if len(found) == len({row.image for row in rows}) else found


def by_label(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of each curve, in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.label, []).append(row)
    return groups


def compare(anchor: Curve, curve: Curve, metric: str = "psnr") -> BDRate:
    """BD-rate of `curve` against `anchor` at equal scores of a metric."""
    return compare_curves(anchor.values("bpp"), anchor.on_axis(metric), curve.values("bpp"), curve.on_axis(metric))


def measured_metrics(curves: Sequence[Curve]) -> list[str]:
    """Metrics that at least one curve has, in the order of their registration."""
    return [metric for metric in METRICS if any(curve.has(metric) for curve in curves)]


def _mean_points(rows: Sequence[Row], images: set[str]) -> tuple[Point, ...]:
    points = []
    for quality, group in groupby(sorted(rows, key=lambda row: row.quality), lambda row: row.quality):
        group = list(group)
        if {row.image for row in group} == images:
            points.append(_mean_point(quality, group))
    return tuple(sorted(points, key=lambda point: point.bpp))


def _mean_point(quality: float, rows: Sequence[Row]) -> Point:
    metrics = [metric for metric in METRICS if all(metric in row.scores for row in rows)]
    return Point(
        quality=quality,
        bpp=fmean(row.bpp for row in rows),
        scores={metric: fmean(row.scores[metric] for row in rows) for metric in metrics},
        J=fmean(row.J for row in rows),
        encode_seconds=fmean(row.encode_seconds for row in rows),
        decode_seconds=fmean(row.decode_seconds for row in rows),
        peak_memory_mb=max((row.peak_memory_mb for row in rows), default=math.nan),
    )
