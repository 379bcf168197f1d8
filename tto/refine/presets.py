"""Efforts as data: what is done, for how many steps, with which step sizes.

An effort is a tuple of stages and a stage a tuple of operations, done in order. Each effort begins with all of the one
below it, and the best candidate at the end of every stage is judged by its real bytes, so a higher effort cannot end
with a higher J.
"""

from __future__ import annotations

from dataclasses import dataclass

from tto.errors import BadArgument
from tto.refine.rate import Rate, expected_bits, gaussian_bits, mixed_bits
from tto.refine.relaxations import SGA, Relaxation, SoftRounding, StraightThrough
from tto.refine.schedules import Constant, Cosine, DelayedExponential, Geometric, Schedule


@dataclass(frozen=True)
class Phase:
    """One stretch of gradient descent. Schedules are functions of the part of it that is done.

    step_size: of the optimizer, for y in quantization steps; temperature: of the relaxation; rate: how relaxed slices
    of y are priced (`tto.refine.rate`; what is hard has integers, and `gaussian_bits` their two-sided slopes);
    rate_weight: of R in the loss, below 1 early on keeps descent from throwing information away (CGOO's relaxed rate;
    the ramp is ours). No preset has one; `scripts/ablate.py` measures it.
    """

    steps: int
    relaxation: Relaxation
    step_size: Schedule
    temperature: Schedule = Constant(1.0)
    rate: Rate = expected_bits
    rate_weight: Schedule = Constant(1.0)
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.8, 0.95)


@dataclass(frozen=True)
class ChooseStep:
    """Adaptive quantization step (CGOO; choice and coding ours): Δ of y is moved by `offset` entries of the file's
    geometric table (32 to an octave), up first, and the latents are refined there by `phases`. While that lowers J it
    goes on in the same direction, else in the other, `tries` times in all.
    """

    offset: int
    tries: int
    phases: tuple[Phase, ...]

    @property
    def steps(self) -> int:
        return self.tries * sum(phase.steps for phase in self.phases)


@dataclass(frozen=True)
class FlipSymbols:
    """Discrete descent on the symbols that the latents round to: see `tto.refine.flips`. Steps are evaluations."""

    steps: int


@dataclass(frozen=True)
class Compensate:
    """Masked compensation (CGOO): see `tto.refine.compensation`. Steps are evaluations."""

    steps: int


@dataclass(frozen=True)
class Transform:
    """The colour transform (CGOO): see `tto.refine.transform`. Steps are evaluations, of which it takes two."""

    steps: int = 2


SideOperation = Compensate | Transform
Operation = Phase | ChooseStep | FlipSymbols | SideOperation
Stage = tuple[Operation, ...]

FAST: Stage = (
    Phase(14, SoftRounding(), Cosine(0.2, 0.01), Geometric(0.35, 0.15), rate=mixed_bits),
    FlipSymbols(10),
)
BALANCED: Stage = (Phase(26, SoftRounding(), Cosine(0.08, 0.01), Geometric(0.4, 0.3)), FlipSymbols(24))
BEST: Stage = (
    Phase(
        100,
        SGA(),
        Constant(0.02),
        DelayedExponential(0.5, rate=2.5, delay=0.3),
        rate=gaussian_bits,
        betas=(0.9, 0.999),
    ),
    FlipSymbols(30),
    ChooseStep(
        offset=8,
        tries=2,
        phases=(
            Phase(14, SoftRounding(), Cosine(0.05, 0.01), Constant(0.3)),
            Phase(2, StraightThrough(), Geometric(0.01, 0.003), rate=gaussian_bits),
        ),
    ),
    FlipSymbols(30),
)
SIDE: Stage = (Transform(), FlipSymbols(30), Compensate(16), Transform(), FlipSymbols(20), Compensate(8), Transform())
"""For models with side modules. With the transform in place flips find more, so they come after it."""
EFFORTS: dict[str, tuple[Stage, ...]] = {
    "none": (),
    "fast": (FAST,),
    "balanced": (FAST, BALANCED),
    "best": (FAST, BALANCED, BEST, SIDE),
}


def steps_of(stages: tuple[Stage, ...]) -> int:
    return sum(operation.steps for stage in stages for operation in stage)


def stages_of(effort: str) -> tuple[Stage, ...]:
    """Raises `BadArgument` for an unknown effort."""
    if effort not in EFFORTS:
        raise BadArgument(f"unknown effort {effort!r}: {', '.join(EFFORTS)}")
    return EFFORTS[effort]
