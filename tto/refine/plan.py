"""How much work is to be done: stages from an effort, a number of steps, or seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import Tensor

from tto.container import NEUTRAL_QP
from tto.refine.budget import Budget
from tto.refine.operation import Operation
from tto.refine.presets import EFFORTS, Stage, stages_of, steps_of
from tto.refine.problem import Problem
from tto.request import Request

STEP_OVER_EVALUATION = {False: 2.3, True: 1.1}
"""Time of a step, which goes forward and back, over that of going forward in float32; True: in bfloat16."""
FILTERING = 2.5
"""Time of fitting the filter that a stage ends with, over that of going forward."""


@dataclass(frozen=True)
class Plan:
    """`stages` to go through, within `seconds` if given."""

    stages: tuple[Stage, ...]
    seconds: float | None = None

    @property
    def budget(self) -> Budget:
        return Budget(steps_of(self.stages), self.seconds)


def make_plan(
    request: Request, problem: Problem, y: Tensor, z: Tensor, seconds_left: float, judging: float = 0.0
) -> Plan:
    """The stages of a request; where it is a budget, `seconds_left` of it are for refinement, and for making and
    decoding the file of every stage and of the best, which takes `judging` seconds each.

    Operations that are not possible, as without side modules, are left out. Which effort's stages suit a budget is
    judged from the time of one evaluation; the clock then paces them.
    """
    if request.budget is None:
        if request.steps is not None:
            return Plan(stages_for(request.steps, problem))
        return Plan(_possible(stages_of(request.chosen_effort), problem))
    start = time.monotonic()
    problem.candidate(y, z, NEUTRAL_QP)
    evaluation = time.monotonic() - start
    own = 2 + FILTERING  # this one, that before the first step, and the last fit of a filter
    seconds_left -= own * evaluation + judging  # of the best
    steps = int((seconds_left - judging) / (STEP_OVER_EVALUATION[problem.bfloat16] * evaluation))
    stages = stages_for(max(steps, 0), problem)
    seconds_left -= len(stages) * judging
    return Plan(stages, seconds_left) if stages and seconds_left > 0 else Plan(())


def stages_for(steps: int, problem: Problem) -> tuple[Stage, ...]:
    """The highest effort's stages one after the other as far as they fit, the next one shrunk to what is left; all of
    them stretched where that is more. So as many steps as an effort has or more, but no more than the highest has,
    never end with a higher J than it.
    """
    stages = _possible(list(EFFORTS.values())[-1], problem)
    if steps > steps_of(stages):
        return _scaled(stages, steps)
    chosen: tuple[Stage, ...] = ()
    for stage in stages:
        left = steps - steps_of(chosen)
        if left == 0:
            break
        chosen += (stage,) if steps_of((stage,)) <= left else _scaled((stage,), left)
    return chosen


def _possible(stages: tuple[Stage, ...], problem: Problem) -> tuple[Stage, ...]:
    return tuple(tuple(operation for operation in stage if operation.possible(problem)) for stage in stages)


def _scaled(stages: tuple[Stage, ...], steps: int) -> tuple[Stage, ...]:
    """Every operation's steps times one factor, together `steps`; operations left with none are left out.

    Those that cannot take any number are scaled first. What rounding takes from one of the others goes to the next.
    """
    operations = [operation for stage in stages for operation in stage]
    coarse = [operation for operation in operations if not operation.exact]
    others_total = sum(operation.steps for operation in operations if operation.exact)
    resized = {choice: choice.resized(round(steps * choice.steps / steps_of(stages))) for choice in coarse}
    others_steps = steps - sum(choice.steps for choice in resized.values() if choice is not None)
    given = planned = 0

    def scale(operation: Operation) -> Operation | None:
        nonlocal given, planned
        if operation in coarse:
            return resized[operation]
        planned += operation.steps
        wanted = round(others_steps * planned / others_total) - given
        given += wanted
        return operation.resized(wanted)

    return tuple(tuple(filter(None, map(scale, stage))) for stage in stages)
