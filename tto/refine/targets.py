"""Landing on a wanted rate or quality: a search over quality and quantization step.

Both are one number s: from 1 to Q it is the quality itself; below and above it goes on with a coarser or finer step at
the lowest or highest quality, as many table entries as keep the rate falling or rising about as fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from tto.container import NEUTRAL_QP, QUALITY_STEPS
from tto.errors import BadArgument, TargetMissed
from tto.metrics import MS_SSIM_MIN_SIDE, ms_ssim, ms_ssim_db, ssimulacra2
from tto.packages import require
from tto.ssimulacra2 import MIN_SIDE as SSIMULACRA2_MIN_SIDE

MOST_ATTEMPTS = 12
QP_PER_QUALITY = 16
BEYOND = 4.0
"""How far s may leave the range of qualities: two octaves of the step."""


class Measured(Protocol):
    @property
    def bpp(self) -> float: ...

    @property
    def psnr(self) -> float: ...

    @property
    def image(self) -> Image.Image: ...


Result = TypeVar("Result", bound=Measured)


@dataclass(frozen=True)
class Figure:
    """What can be aimed at. `label` names a value of it, for people.

    of: its value for a result and the original uint8 pixels [H, W, 3]; axis: a scale of values along which quality acts
    about linearly; slope: growth there per unit of quality, where the search looks before it knows better.
    tolerance: what a value may miss the wanted one by, on that scale.
    above, below: what values lie between; min_side: pixels a side of the smallest picture that has one.
    """

    label: str
    of: Callable[[Measured, np.ndarray], float]
    slope: float
    tolerance: Callable[[float], float]
    axis: Callable[[float], float] = float
    above: float = 0.0
    below: float = math.inf
    min_side: int = 1
    package: str | None = None


MS_SSIM_TOLERANCE = 0.002

FIGURES = {
    "bpp": Figure("{:.4g} bpp", lambda result, _: result.bpp, 0.35, lambda _: 0.98 * math.log1p(0.01), axis=math.log),
    "psnr": Figure("{:.4g} dB", lambda result, _: result.psnr, 1.2, lambda _: 0.05),
    "ssimulacra2": Figure(
        "SSIMULACRA2 {:.4g}",
        lambda result, original: ssimulacra2(original, _pixels(result)),
        8.0,
        lambda _: 0.5,
        above=-math.inf,
        below=100.0,
        min_side=SSIMULACRA2_MIN_SIDE,
        package="ssimulacra2",
    ),
    "ms_ssim": Figure(
        "MS-SSIM {:.4g}",
        lambda result, original: ms_ssim(original, _pixels(result)),
        1.5,
        lambda value: ms_ssim_db(value) - ms_ssim_db(value - MS_SSIM_TOLERANCE),  # upwards it may be more
        axis=ms_ssim_db,
        below=1.0,
        min_side=MS_SSIM_MIN_SIDE,
    ),
}
"""By their names in `Codec.compress`, there after `target_`."""


def _pixels(result: Measured) -> np.ndarray:
    return np.asarray(result.image.convert("RGB"))


@dataclass(frozen=True)
class Target:
    """A wanted value of a figure for a picture uint8 [H, W, 3]."""

    name: str
    value: float
    original: np.ndarray

    @property
    def figure(self) -> Figure:
        return FIGURES[self.name]

    def measure(self, result: Measured) -> float:
        return self.figure.of(result, self.original)

    def miss(self, value: float) -> float:
        """By how much a value is above the wanted one, on the figure's axis in units of its tolerance."""
        figure = self.figure
        return (figure.axis(value) - figure.axis(self.value)) / figure.tolerance(self.value)

    @property
    def slope(self) -> float:
        """What `miss` grows by per unit of quality, roughly."""
        return self.figure.slope / self.figure.tolerance(self.value)


def make_target(original: np.ndarray, **wanted: float | None) -> Target | None:
    """The target of which a value is given, if any. Raises `BadArgument` for two, or one without meaning."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if len(given) > 1:
        raise BadArgument(f"give one target, not {len(given)} ({', '.join(given)})")
    for name, value in given.items():
        figure = FIGURES[name]
        if not figure.above < value < figure.below:
            raise BadArgument(
                f"the target {name} must lie between {figure.above:g} and {figure.below:g}, got {value:g}"
            )
        if min(original.shape[:2]) < figure.min_side:
            raise BadArgument(f"the target {name} needs a picture of at least {figure.min_side} pixels a side")
        if figure.package:
            require(figure.package, "bench")
        return Target(name, value, original)
    return None


def operating_point(s: float, qualities: int) -> tuple[float, int]:
    """Quality and qp of s."""
    quality = min(max(s, 1.0), float(qualities))
    return quality, NEUTRAL_QP - round(QP_PER_QUALITY * (s - quality))


def _of_a_file(s: float, qualities: int) -> tuple[int, int]:
    """Quality and qp of s as a file holds them: beyond the qualities few of s differ."""
    quality, qp = operating_point(s, qualities)
    return round(quality * QUALITY_STEPS), qp


def search(
    attempt: Callable[[float, int], Result],
    target: Target,
    start: float,
    qualities: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Result, float]:
    """The first result of `attempt(quality, qp)` within the target's tolerance, or the nearest when told to stop, and
    its value of the target's figure.

    Regula falsi (Illinois) between the closest values below and above, by the usual slope until there are both.
    Raises `TargetMissed` with the nearest value found.
    """
    low_end, high_end = 1.0 - BEYOND, qualities + BEYOND
    below: tuple[float, float] | None = None  # s and its miss, negative
    above: tuple[float, float] | None = None
    s, nearest, least, tried = start, None, math.inf, set[tuple[int, int]]()
    for _ in range(MOST_ATTEMPTS):
        result = attempt(*operating_point(s, qualities))
        tried.add(_of_a_file(s, qualities))
        value = target.measure(result)
        miss = target.miss(value)
        if nearest is None or abs(miss) < least:
            nearest, least = (result, value), abs(miss)
        if abs(miss) <= 1 or should_stop():
            return nearest
        if miss < 0:
            below, above = (s, miss), above and (above[0], above[1] / 2 if below else above[1])
        else:
            above, below = (s, miss), below and (below[0], below[1] / 2 if above else below[1])
        if below and above:
            following = below[0] + (above[0] - below[0]) * -below[1] / (above[1] - below[1])
            if _of_a_file(following, qualities) in tried:
                following = (below[0] + above[0]) / 2
        else:
            step = max(abs(miss) / target.slope, 1 / QP_PER_QUALITY)  # a smaller one may give the same file
            following = min(max(s - math.copysign(step, miss), low_end), high_end)
        if _of_a_file(following, qualities) in tried:
            break  # no file lies between those that are nearest
        s = following
    assert nearest is not None
    label, (result, value) = target.figure.label, nearest
    raise TargetMissed(
        f"no file of {label.format(target.value)}: the nearest has {label.format(value)} "
        f"({result.bpp:.4f} bpp and {result.psnr:.2f} dB)",
        is_below=target.miss(value) < 0,
    )
