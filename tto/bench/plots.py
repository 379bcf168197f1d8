"""Rate–distortion plots for papers, PNG and SVG (needs matplotlib)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tto.bench.curves import Curve, measured_metrics
from tto.bench.scores import METRICS
from tto.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN = 1.15
PUBLISHED_DRAWN = ("vtm-9.1", "bpg-444", "dcae")
"""Published curves that a plot on paper has room for."""
PUBLISHED_DOTS = ((0, (1, 1)), (0, (1, 2)), (0, (1, 4)))
PANELS_ACROSS = 3


def write_plots(folder: Path, curves: Sequence[Curve], title: str) -> None:
    """`rd.png` and `rd.svg`: every metric that was measured over bits per pixel.

    Measured curves are solid, published ones dotted.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    metrics = measured_metrics(curves)
    rows = -(-len(metrics) // PANELS_ACROSS)
    columns = -(-len(metrics) // rows)
    figure = Figure(figsize=(6.4 * columns, 4.8 * rows), layout="constrained")
    figure.suptitle(_without_mathematics(title))
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in panels[len(metrics) :]:
        axes.remove()
    for axes, metric in zip(panels, metrics, strict=False):
        _draw(axes, curves, metric)
        label = METRICS[metric].axis
        axes.set(xlabel="bits per pixel (bytes on disk)", ylabel=label, xlim=(0, _widest(curves)))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for suffix in ("png", "svg"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=200)
        write_atomic(folder / f"rd.{suffix}", buffer.getvalue())


def _without_mathematics(text: str) -> str:
    """As Matplotlib shows it as it is."""
    return text.replace("$", r"\$")


def _widest(curves: Sequence[Curve]) -> float:
    return MARGIN * max((rate for curve in measured_first(curves) for rate in curve.values("bpp")), default=1.0)


def measured_first(curves: Sequence[Curve]) -> list[Curve]:
    """Curves that set the extent of a plot: the learned ones, or all measured ones if there is none."""
    measured = [curve for curve in curves if not curve.source and curve.points]
    return [curve for curve in measured if not curve.is_anchor] or measured


def _draw(axes: Axes, curves: Sequence[Curve], metric: str) -> None:
    widest = _widest(curves)
    for curve in curves:
        points = [
            (rate, value)
            for rate, value in zip(curve.values("bpp"), curve.on_axis(metric), strict=True)
            if math.isfinite(value) and rate <= widest
        ]
        if not points or (curve.source and curve.codec not in PUBLISHED_DRAWN):
            continue
        if curve.source:
            dots = PUBLISHED_DOTS[PUBLISHED_DRAWN.index(curve.codec)]
            style = {"linestyle": dots, "linewidth": 1.2, "color": "0.45"}
        else:
            style = {"marker": "o", "markersize": 3}
        axes.plot(
            *zip(*points, strict=True),
            label=_without_mathematics(curve.label),
            zorder=3 if curve.effort else 2,
            **style,
        )
