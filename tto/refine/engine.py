"""The one loop: stages of operations, each stage ending with a candidate that may become the file.

The filter that suits it is in force in the stage that follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tto.errors import NotEnoughMemory
from tto.refine.filtering import finished
from tto.refine.operation import run_all
from tto.refine.plan import Plan
from tto.refine.problem import Candidate, Problem
from tto.refine.state import Callbacks, State


@dataclass(frozen=True)
class Refinement:
    """What refining gave: the best candidate at the end of every stage, with its filter, and how many steps it took."""

    candidates: tuple[Candidate, ...]
    steps: int


def refine(problem: Problem, y: Tensor, z: Tensor, qp: int, plan: Plan, callbacks: Callbacks) -> Refinement:
    """Refines y [1, M, h, w] and z [1, N, hz, wz] of one picture, beginning at step `qp`.

    Raises `NotEnoughMemory` in the first stage; in a later one it ends with what there is.
    """
    state = State(problem, y, z, qp, plan.budget, callbacks)
    candidates = []
    for stage in plan.stages:
        try:
            run_all(stage, state)
        except NotEnoughMemory:
            if not candidates:
                raise
            break
        candidates.append(finished(state.problem, state.best))
        if state.is_over():
            break
        state.keep(candidates[-1])
        state.go_on_with_side()
    return Refinement(tuple(candidates), state.steps)
