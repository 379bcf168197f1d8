"""Efforts as data: what is done, for how many steps, with which step sizes.

An effort is a tuple of stages and a stage a tuple of operations, done in order. Each effort begins with all of the one
below it, and the best candidate at the end of every stage, its filter fitted anew, is judged by its real bytes, so a
higher effort cannot end with a higher J.
"""

from __future__ import annotations

from tto.errors import BadArgument
from tto.refine.adaptation import FitAdaptation
from tto.refine.compensation import ChooseCodes
from tto.refine.descent import Phase
from tto.refine.filtering import FitFilter
from tto.refine.flips import AnnealSymbols, FlipSymbols
from tto.refine.operation import Operation
from tto.refine.quantization_step import ChooseStep
from tto.refine.rate import mixed_bits
from tto.refine.relaxations import SoftRounding
from tto.refine.schedules import Cosine, Geometric
from tto.refine.transform import FitTransform

Stage = tuple[Operation, ...]

DESCENT = Phase(7, SoftRounding(), Cosine(0.2, 0.01), Geometric(0.35, 0.15), rate=mixed_bits)
"""What every effort begins with; latents are refined by it in training, too."""
FAST: Stage = (
    DESCENT,
    FitFilter(),
    AnnealSymbols(10),
    FlipSymbols(7),
)
BALANCED: Stage = (AnnealSymbols(36), FlipSymbols(14))
BEST: Stage = (
    Phase(40, SoftRounding(), Cosine(0.08, 0.01), Geometric(0.4, 0.3)),
    AnnealSymbols(40),
    FlipSymbols(16),
    ChooseStep(offset=8, tries=2, operations=(AnnealSymbols(12), FlipSymbols(6))),
)
SIDE: Stage = (
    FitTransform(),
    FlipSymbols(20),
    ChooseCodes(6),
    FitFilter(),
    FitTransform(),
    FlipSymbols(10),
)
"""What travels beside the latents, beyond the filter. With it in place flips find more, so they come after it."""
OWN: Stage = (FitAdaptation(104), AnnealSymbols(16), FlipSymbols(12), FitFilter(), FitTransform(), FlipSymbols(6))
"""Weights of the picture's own: they pay where it is unlike what the network was trained on."""
EFFORTS: dict[str, tuple[Stage, ...]] = {
    "none": (),
    "fast": (FAST,),
    "balanced": (FAST, BALANCED),
    "best": (FAST, BALANCED, BEST, SIDE),
    "max": (FAST, BALANCED, BEST, SIDE, OWN),
}


def steps_of(stages: tuple[Stage, ...]) -> int:
    return sum(operation.steps for stage in stages for operation in stage)


def stages_of(effort: str) -> tuple[Stage, ...]:
    """Raises `BadArgument` for an unknown effort."""
    if effort not in EFFORTS:
        raise BadArgument(f"unknown effort {effort!r}: {', '.join(EFFORTS)}")
    return EFFORTS[effort]
