"""Efforts as data: what is done, for how many steps, with which step sizes.

A `Phase` is one stretch of gradient descent with one relaxation and one optimizer; a `Preset` is a list of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tto.refine.relaxations import Relaxation, SoftRounding, StraightThrough
from tto.refine.schedules import Constant, Cosine, Geometric, Schedule


@dataclass(frozen=True)
class Phase:
    """Schedules are functions of the part of the phase that is done.

    step_size: of the optimizer, in quantization steps; temperature: of the relaxation; rate_weight: of R in the loss,
    below 1 early on keeps descent from throwing information away (CGOO's relaxed rate; the ramp is ours);
    z_step: step size of z over that of y, 0 leaves z alone; score_every: steps between looks at the hard-rounded
    latents (a hard relaxation is looked at in every step for free); patience: looks without a better candidate
    after which the phase ends, 0 for never; restart: begin at the best candidate, not where the last phase ended.
    """

    steps: int
    relaxation: Relaxation
    step_size: Schedule
    temperature: Schedule = Constant(1.0)
    rate_weight: Schedule = Constant(1.0)
    optimizer: str = "adam"
    z_step: float = 1.0
    score_every: int = 0
    patience: int = 0
    restart: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


FAST = (
    Phase(22, SoftRounding(), Cosine(0.05, 0.01), Geometric(0.6, 0.06)),
    Phase(3, StraightThrough(), Geometric(0.01, 0.003)),
)
