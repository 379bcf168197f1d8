"""What a person asks of one compression."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING

from tto.errors import BadArgument
from tto.refine.presets import stages_of

if TYPE_CHECKING:
    from tto.image import PictureLike
    from tto.perceptual import Distance

TARGET = "target_"


MAX_LAMBDA = 1e9
"""Far beyond any use: MS-SSIM at the highest quality has about 1e3. Latents driven by far more are no numbers."""


@dataclass(frozen=True)
class Request:
    """How a picture is to be compressed.

    `quality` is a number from 1 to the model's highest. Refinement: `effort` is none, fast, balanced, best or max (by
    default none, or fast where `roi` or `metric` says what to refine for); or give a number of `steps`; or, without a
    target, a `budget` in seconds for the whole compression. Where one `target_…` is given (PSNR in dB), quality is only
    where the search for it begins. `metric` is what distortion means in J: mse, ms-ssim, lpips, dists, or any function
    that `make_distortion` takes; by default what the network was trained for. `roi` is a picture of the same size whose
    brightness weighs distortion per pixel (black: not at all). `native` trades portability for speed (same machine
    only). `lambda_` weighs distortion in J, by default the quality's own, which only mse and ms-ssim have.
    """

    quality: float = 4.0
    effort: str | None = None
    steps: int | None = None
    budget: float | None = None
    target_bpp: float | None = None
    target_psnr: float | None = None
    target_ssimulacra2: float | None = None
    target_ms_ssim: float | None = None
    metric: str | Distance | None = None
    roi: PictureLike | None = None
    native: bool = False
    lambda_: float | None = None

    def __post_init__(self):
        """Raises `BadArgument`."""
        for name in ("quality", "steps", "budget", "lambda_", *(TARGET + figure for figure in self.targets)):
            _check_number(name, getattr(self, name), optional=name != "quality")
        stages_of(self.chosen_effort)
        if self.effort == "none" and self._is_aimed and not self._is_counted:
            raise BadArgument("a region and a metric say what to refine for, and effort none refines nothing")
        if self.steps is not None and self.budget is not None:
            raise BadArgument("give a number of steps or a budget, not both")
        if self.budget is not None and self.searches:
            raise BadArgument("a budget is for one compression, and a search makes several: give an effort or steps")
        if self._is_counted and self.chosen_effort != "none":
            raise BadArgument("give an effort, or a number of steps, or a budget")
        if self.steps is not None and not (isinstance(self.steps, Integral) and self.steps >= 0):
            raise BadArgument(f"steps must be a whole number of at least 0, got {self.steps}")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise BadArgument(f"the budget must be a positive number of seconds, got {self.budget:g}")
        if self.lambda_ is not None and not 0 < self.lambda_ <= MAX_LAMBDA:
            raise BadArgument(f"lambda must be a positive number up to {MAX_LAMBDA:g}, got {self.lambda_:g}")

    @property
    def chosen_effort(self) -> str:
        if self.effort is not None:
            return self.effort
        return "fast" if self._is_aimed and not self._is_counted else "none"

    @property
    def _is_aimed(self) -> bool:
        """Whether there is something that only refinement can do."""
        return self.roi is not None or self.metric not in (None, "mse")

    @property
    def _is_counted(self) -> bool:
        return self.steps is not None or self.budget is not None

    @property
    def refines(self) -> bool:
        return self.chosen_effort != "none" or bool(self.steps) or self.budget is not None

    @property
    def searches(self) -> bool:
        return any(value is not None for value in self.targets.values())

    @property
    def targets(self) -> dict[str, float | None]:
        """Values to search for, by their names in `tto.refine.targets.FIGURES`."""
        names = (field.name for field in fields(self) if field.name.startswith(TARGET))
        return {name.removeprefix(TARGET): getattr(self, name) for name in names}


def _check_number(name: str, value: object, optional: bool) -> None:
    if not (optional and value is None) and (isinstance(value, bool) or not isinstance(value, Real)):
        raise BadArgument(f"{name.rstrip('_')} must be a number, got {value!r}")
