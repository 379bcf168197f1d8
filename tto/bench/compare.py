"""Two curves against each other: BD-rate, image by image, and how sure one can be of it.

The confidence interval resamples the images with replacement (the same images for both curves), averages their
points and takes the BD-rate again, many times: the 2.5th and 97.5th percentile. It speaks of the choice of
images only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tto.bench.bdrate import BDRate, compare_curves
from tto.bench.curves import by_label
from tto.bench.rows import Row
from tto.errors import BadArgument

RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True)
class Comparison:
    """How `label_b` compares with `label_a`, the anchor.

    mean: BD-rate of the mean curves; low, high: its 95 % interval in percent (`nan` for fewer than two
    images); per_image: BD-rate of each image's own curves, `nan` in percent where they do not overlap.
    """

    label_a: str
    label_b: str
    mean: BDRate
    low: float
    high: float
    per_image: dict[str, BDRate]


def compare_runs(rows_a: Sequence[Row], rows_b: Sequence[Row]) -> list[Comparison]:
    """Curves of one name are compared; where each run has a single curve, those two, whatever their names.

    Only images with the same pixels in both runs count. Raises `BadArgument` where nothing can be compared.
    """
    curves_a, curves_b = by_label(rows_a), by_label(rows_b)
    pairs = [(label, label) for label in curves_a if label in curves_b]
    if len(curves_a) == len(curves_b) == 1:
        pairs = [(next(iter(curves_a)), next(iter(curves_b)))]
    if not pairs:
        raise BadArgument(f"nothing to compare: the first has {', '.join(curves_a)}; the second {', '.join(curves_b)}")
    comparisons = []
    for a, b in pairs:
        if (comparison := compare_rows(curves_a[a], curves_b[b])) is None:
            raise BadArgument(f"{a} and {b} have no image in common")
        comparisons.append(comparison)
    return comparisons


def compare_rows(rows_a: Sequence[Row], rows_b: Sequence[Row]) -> Comparison | None:
    """The curve of `rows_b` against that of `rows_a`; None where no image is measured at every quality of both."""
    table_a, table_b = _table(rows_a), _table(rows_b)
    shared = [key for key in table_a if key in table_b]
    if not shared:
        return None
    a = np.stack([table_a[key] for key in shared])  # [images, qualities, (bpp, dB)]
    b = np.stack([table_b[key] for key in shared])
    mean = _bd(a.mean(0), b.mean(0))
    low, high = _interval(a, b) if math.isfinite(mean.percent) else (math.nan, math.nan)
    per_image = {name: _bd(a[i], b[i]) for i, (name, _) in enumerate(shared)}
    return Comparison(rows_a[0].label, rows_b[0].label, mean, low, high, per_image)


def _table(rows: Sequence[Row]) -> dict[tuple[str, str], np.ndarray]:
    """(image, content) → [qualities, (bpp, dB)], for images measured at every quality of the run."""
    points: dict[tuple[str, str], dict[float, tuple[float, float]]] = {}
    for row in rows:
        points.setdefault((row.image, row.content), {})[row.quality] = (row.bpp, row.scores.get("psnr", math.nan))
    qualities = sorted({row.quality for row in rows})
    return {
        key: np.array([found[quality] for quality in qualities])
        for key, found in points.items()
        if len(found) == len(qualities)
    }


def _bd(anchor: np.ndarray, test: np.ndarray) -> BDRate:
    return compare_curves(*anchor.T.tolist(), *test.T.tolist())


def _interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    if len(a) < 2:
        return math.nan, math.nan
    random = np.random.default_rng(SEED)
    draws = random.integers(0, len(a), (RESAMPLES, len(a)))
    rates = [_bd(a[draw].mean(0), b[draw].mean(0)).percent for draw in draws]
    if not all(map(math.isfinite, rates)):  # too little overlap to say
        return math.nan, math.nan
    low, high = np.percentile(rates, [2.5, 97.5])
    return float(low), float(high)
