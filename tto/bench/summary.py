"""One line per curve: how it compares with the anchors, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tto.bench.bdrate import BDRate
from tto.bench.compare import compare_rows
from tto.bench.curves import Curve, by_label, compare, measured_metrics
from tto.bench.published import REFERENCES
from tto.bench.rows import Row
from tto.errors import BadArgument

UNREFINED = "none"
UNKNOWN = BDRate(math.nan, math.nan, math.nan, 0.0)
NO_INTERVAL = (math.nan, math.nan)


@dataclass(frozen=True)
class SummaryLine:
    """A curve in one line.

    bd_rate: by metric, against each reference by name, where both have it. interval: 95 % interval in percent of the
    one on PSNR against the chosen anchor, `nan` where either was not measured here.
    against_none: against the same codec at effort none, on PSNR.
    J_gain: how much lower the mean J is than at effort none, in percent, `nan` where there is none.
    encode_seconds, decode_seconds: means over all files; peak_memory_mb: the largest; parameters: 0 where unknown.
    """

    curve: Curve
    bd_rate: Mapping[str, Mapping[str, BDRate]]
    interval: tuple[float, float]
    against_none: BDRate
    J_gain: float
    encode_seconds: float
    decode_seconds: float
    peak_memory_mb: float
    parameters: int


@dataclass(frozen=True)
class Summary:
    """anchor: label of the curve that the table's BD-rates are taken against; references: of all that are compared
    with; lines: of every curve.
    """

    anchor: str
    references: tuple[str, ...]
    lines: tuple[SummaryLine, ...]

    @property
    def curves(self) -> list[Curve]:
        return [line.curve for line in self.lines]


def references(curves: Sequence[Curve]) -> list[Curve]:
    """What BD-rates are taken against: the anchors measured here, then VTM and BPG as published."""
    anchors = [curve for curve in curves if curve.is_anchor]
    return anchors + [curve for curve in curves if curve.source and curve.codec in REFERENCES]


def choose_anchor(curves: Sequence[Curve], wanted: str = "") -> Curve:
    """The curve of that label or codec, or the first anchor, or the first curve. Raises `BadArgument`."""
    if not wanted:
        return next((curve for curve in curves if curve.is_anchor and curve.points), curves[0])
    for curve in curves:
        if wanted in (curve.label, curve.codec):
            return curve
    raise BadArgument(f"no curve {wanted!r} to compare with: there are {', '.join(curve.label for curve in curves)}")


def summarize(curves: Sequence[Curve], rows: Sequence[Row] = (), anchor: str = "") -> Summary:
    """A line for every curve, measured or published; `rows` are those that the measured ones are means of."""
    chosen = choose_anchor(curves, anchor)
    against = references(curves)
    against += [] if chosen in against else [chosen]
    metrics, groups = measured_metrics(curves), by_label(rows)
    lines = []
    for curve in curves:
        bd_rate = {metric: _against(curve, against, metric) for metric in metrics}
        lines.append(_line(curve, curves, bd_rate, groups, chosen))
    return Summary(chosen.label, tuple(other.label for other in against), tuple(lines))


def _against(curve: Curve, against: Sequence[Curve], metric: str) -> dict[str, BDRate]:
    others = [other for other in against if other is not curve and other.has(metric) and curve.has(metric)]
    return {other.label: compare(other, curve, metric) for other in others}


def _line(
    curve: Curve,
    curves: Sequence[Curve],
    bd_rate: Mapping[str, Mapping[str, BDRate]],
    groups: Mapping[str, Sequence[Row]],
    anchor: Curve,
) -> SummaryLine:
    unrefined = next((c for c in curves if c.codec == curve.codec and c.effort == UNREFINED), None)
    base = unrefined if curve.effort and unrefined is not curve else None  # of a curve that is refined
    return SummaryLine(
        curve=curve,
        bd_rate=bd_rate,
        interval=_interval(_rows_of(anchor, groups), _rows_of(curve, groups)) if curve is not anchor else NO_INTERVAL,
        against_none=compare(base, curve) if base is not None else UNKNOWN,
        J_gain=_gain(base, curve) if base is not None else math.nan,
        encode_seconds=_mean(curve.values("encode_seconds")),
        decode_seconds=_mean(curve.values("decode_seconds")),
        peak_memory_mb=max(curve.values("peak_memory_mb"), default=math.nan),
        parameters=max((row.parameters for row in groups.get(curve.label, ())), default=0),
    )


def _rows_of(curve: Curve, groups: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Rows that the curve's points are means of; none of a published curve."""
    qualities = set(curve.values("quality"))
    return [row for row in groups.get(curve.label, ()) if row.quality in qualities]


def _interval(anchor: Sequence[Row], rows: Sequence[Row]) -> tuple[float, float]:
    found = compare_rows(anchor, rows) if anchor and rows else None
    return (found.low, found.high) if found else NO_INTERVAL


def _gain(unrefined: Curve, refined: Curve) -> float:
    """Percent by which J falls, averaged over the qualities that both have."""
    base = {point.quality: point.J for point in unrefined.points}
    pairs = [(base[point.quality], point.J) for point in refined.points if point.quality in base]
    return _mean([100 * (1 - after / before) for before, after in pairs])


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
