"""Efforts as data: what is done, for how many steps, with which step sizes.

An effort is a tuple of stages and a stage a tuple of operations, done in order. Each effort begins with all of the one
below it, and the best candidate at the end of every stage is judged by its real bytes, so a higher effort cannot end
with a higher J.
"""

from __future__ import annotations

from dataclasses import dataclass

from tto.errors import BadArgument
from tto.refine.rate import Rate, expected_bits, mixed_bits
from tto.refine.relaxations import Relaxation, SoftRounding
from tto.refine.schedules import Constant, Cosine, Geometric, Schedule


@dataclass(frozen=True)
class Phase:
    """One stretch of gradient descent. Schedules are functions of the part of it that is done.

    step_size: of the optimizer, for y in quantization steps; temperature: of the relaxation; rate: how relaxed slices
    of y are priced (`tto.refine.rate`; what is hard has integers, and `gaussian_bits` their two-sided slopes);
    rate_weight: of R in the loss, below 1 early on keeps descent from throwing information away (CGOO's relaxed rate;
    the ramp is ours). No preset has one; `scripts/ablate.py` measures it.
    latents: what is optimized, of "y" and "z". look_every: latents are rounded for good and judged after so many steps,
    where the relaxation is hard after each, and always at the end. patience: looks in a row that may find nothing
    better before the phase is over.
    """

    steps: int
    relaxation: Relaxation
    step_size: Schedule
    temperature: Schedule = Constant(1.0)
    rate: Rate = expected_bits
    rate_weight: Schedule = Constant(1.0)
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.8, 0.95)
    latents: tuple[str, ...] = ("y", "z")
    look_every: int | None = None
    patience: int | None = None


@dataclass(frozen=True)
class AnnealSymbols:
    """Flips of symbols at random, `temperature` in bits: see `tto.refine.flips.anneal_symbols`."""

    steps: int
    temperature: Schedule = Geometric(2.0, 0.1)


@dataclass(frozen=True)
class FlipSymbols:
    """Discrete descent on the symbols of the latest candidate: see `tto.refine.flips`. Steps are evaluations."""

    steps: int


@dataclass(frozen=True)
class ChooseStep:
    """Adaptive quantization step (CGOO; choice and coding ours): Δ of y is moved by `offset` entries of the file's
    geometric table (32 to an octave), up first, and the symbols that the best latents have there are bettered by
    `operations`. While that lowers J it goes on in the same direction, else in the other, `tries` times in all.
    """

    offset: int
    tries: int
    operations: tuple[Phase | AnnealSymbols | FlipSymbols, ...]

    @property
    def steps(self) -> int:
        return self.tries * sum(operation.steps for operation in self.operations)


@dataclass(frozen=True)
class Filter:
    """The adaptive filter (ours): see `tto.refine.filtering`. Steps are evaluations, of which it takes two."""

    steps: int = 2


@dataclass(frozen=True)
class Compensate:
    """Masked compensation (CGOO): see `tto.refine.compensation`. Steps are evaluations."""

    steps: int


@dataclass(frozen=True)
class Transform:
    """The colour transform (CGOO): see `tto.refine.transform`. Steps are evaluations, of which it takes two."""

    steps: int = 2


ModuleOperation = Compensate | Transform
SideOperation = Filter | ModuleOperation
Operation = Phase | ChooseStep | AnnealSymbols | FlipSymbols | SideOperation
Stage = tuple[Operation, ...]

FAST: Stage = (
    Phase(8, SoftRounding(), Cosine(0.2, 0.01), Geometric(0.35, 0.15), rate=mixed_bits),
    AnnealSymbols(9),
    FlipSymbols(7),
)
BALANCED: Stage = (AnnealSymbols(36), FlipSymbols(14))
BEST: Stage = (
    Phase(40, SoftRounding(), Cosine(0.08, 0.01), Geometric(0.4, 0.3)),
    AnnealSymbols(40),
    FlipSymbols(16),
    ChooseStep(offset=8, tries=2, operations=(AnnealSymbols(12), FlipSymbols(6))),
)
SIDE: Stage = (Filter(), Transform(), FlipSymbols(20), Compensate(6), Filter(), Transform(), FlipSymbols(10))
"""What travels beside the latents. With it in place flips find more, so they come after it."""
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
