"""How much work is to be done: stages from an effort, a number of steps, or seconds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from torch import Tensor

from tto.container import NEUTRAL_QP
from tto.errors import BadArgument
from tto.refine.presets import EFFORTS, ChooseStep, ModuleOperation, Operation, Stage, stages_of, steps_of
from tto.refine.problem import Problem
from tto.side.compensation import CompensationCoder

STEP_OVER_EVALUATION = {False: 2.3, True: 1.1}
"""Time of a step, which goes forward and back, over that of going forward in float32; True: in bfloat16."""
FILTERING = 2.5
"""Time of fitting the filter that a refinement ends with, over that of going forward."""


@dataclass(frozen=True)
class Wish:
    """What a person asked for: an effort, or a number of steps, or a budget in seconds for the whole compression."""

    effort: str = "none"
    steps: int | None = None
    budget: float | None = None

    def __post_init__(self):
        """Raises `BadArgument`."""
        stages_of(self.effort)
        if self.steps is not None and self.budget is not None:
            raise BadArgument("give a number of steps or a budget, not both")
        if (self.steps is not None or self.budget is not None) and self.effort != "none":
            raise BadArgument("give an effort, or a number of steps, or a budget")
        if self.steps is not None and self.steps < 0:
            raise BadArgument(f"steps must be at least 0, got {self.steps}")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise BadArgument(f"the budget must be a positive number of seconds, got {self.budget:g}")

    @property
    def is_none(self) -> bool:
        return self.effort == "none" and not self.steps and self.budget is None


class Pace:
    """How much of one phase is done, by steps or by the clock."""

    def __init__(self, planned: int, seconds: float | None):
        self.steps = 0
        self._planned, self._seconds = planned, seconds
        self._start = time.monotonic()

    def done(self) -> float | None:
        """A part in [0, 1] for the step that is to come, or None where there is none. Counts it."""
        self.steps += 1
        if self._seconds is None:
            return (self.steps - 1) / max(self._planned - 1, 1) if self.steps <= self._planned else None
        elapsed = time.monotonic() - self._start
        return elapsed / self._seconds if elapsed < self._seconds else None


@dataclass(frozen=True)
class Plan:
    """`stages` to go through; with `seconds` each operation takes its share of them, however many steps that is."""

    stages: tuple[Stage, ...]
    seconds: float | None = None

    @property
    def steps(self) -> int:
        return steps_of(self.stages)

    def pace(self, steps: int) -> Pace:
        return Pace(steps, None if self.seconds is None else self.seconds * steps / self.steps)


def make_plan(wish: Wish, problem: Problem, y: Tensor, z: Tensor, seconds_left: float) -> Plan:
    """The stages of a wish; where it is a budget, `seconds_left` of it are for refinement.

    Operations that need side modules are left out for a model that has none. Which effort's stages suit a budget is
    judged from the time of one evaluation; the clock then paces them.
    """
    has_modules = CompensationCoder in problem.side_coder
    if wish.budget is None:
        if wish.steps is not None:
            return Plan(stages_for(wish.steps, has_modules))
        return Plan(_possible(stages_of(wish.effort), has_modules))
    start = time.monotonic()
    problem.candidate(y, z, NEUTRAL_QP)
    evaluation = time.monotonic() - start
    seconds_left -= (2 + FILTERING) * evaluation  # this one, the one before the first step, and the last filter
    steps = int(seconds_left / (STEP_OVER_EVALUATION[problem.bfloat16] * evaluation))
    return Plan(stages_for(steps, has_modules), seconds_left) if steps > 0 else Plan(())


def stages_for(steps: int, has_modules: bool) -> tuple[Stage, ...]:
    """The stages of the smallest effort with so many steps, or of the highest, stretched or shrunk to `steps`.

    `has_modules` says whether the model has side modules.
    """
    if steps == 0:
        return ()
    efforts = [_possible(stages, has_modules) for stages in EFFORTS.values()]
    fitting = [stages for stages in efforts if steps_of(stages) >= steps]
    return _scaled(fitting[0] if fitting else efforts[-1], steps)


def _possible(stages: tuple[Stage, ...], has_modules: bool) -> tuple[Stage, ...]:
    return tuple(
        tuple(operation for operation in stage if has_modules or not isinstance(operation, ModuleOperation))
        for stage in stages
    )


def _scaled(stages: tuple[Stage, ...], steps: int) -> tuple[Stage, ...]:
    """Every operation's steps times one factor, together `steps`; operations left with none are left out.

    Choices of the step cannot take any number and are scaled first. What rounding takes from one of the other
    operations goes to the next.
    """
    operations = [operation for stage in stages for operation in stage]
    choices = [operation for operation in operations if isinstance(operation, ChooseStep)]
    others_total = sum(operation.steps for operation in operations if operation not in choices)
    resized = {choice: _resized(choice, round(steps * choice.steps / steps_of(stages))) for choice in choices}
    others_steps = steps - sum(choice.steps for choice in resized.values() if choice is not None)
    given = planned = 0

    def scale(operation: Operation) -> Operation | None:
        nonlocal given, planned
        if operation in choices:
            return resized[operation]
        planned += operation.steps
        wanted = round(others_steps * planned / others_total) - given
        given += wanted
        return _resized(operation, wanted)

    return tuple(tuple(filter(None, map(scale, stage))) for stage in stages)


def _resized(operation: Operation, steps: int) -> Operation | None:
    """The operation with so many steps, or None where it cannot do anything in them."""
    if isinstance(operation, ChooseStep):
        each = steps / operation.tries
        inner = sum(part.steps for part in operation.operations)
        operations = tuple(
            replace(part, steps=resized)
            for part in operation.operations
            if (resized := int(part.steps * each / inner)) > 0
        )
        return replace(operation, operations=operations) if operations else None
    return replace(operation, steps=steps) if steps > 0 else None
