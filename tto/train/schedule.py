"""Learning rate and length of a stage as functions of how far it is, and how a run goes on or ends.

constant ────────┬──────────┬──────────►   the run: `--resume RUN --minutes M`
                  ╲          ╲
                   ╲ 0        ╲ 0          what is shipped: `--resume RUN --decay-minutes M --out SHIP`
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tto.train.checkpoints import Progress
from tto.train.errors import RecipeError
from tto.train.recipe import Recipe, ScheduleSettings, StageSettings


@dataclass(frozen=True)
class StageLength:
    """Where a stage ends: after `steps`, or after `seconds`, whichever is first; at least one is finite."""

    steps: float
    seconds: float

    def progress(self, step: int, seconds: float) -> float:
        """Part of the stage that is over, 0…1."""
        return min(1.0, max(step / self.steps, seconds / self.seconds))


def stage_length(recipe: Recipe, stage: StageSettings, images: int) -> StageLength:
    """Length of one of the recipe's stages with a data set of `images`."""
    seconds = math.inf
    if recipe.minutes is not None:
        parts = _parts(recipe, images)
        seconds = recipe.minutes * 60.0 * parts[stage.name] / sum(parts.values())
    return StageLength(stage_steps(stage, images), seconds)


def stage_steps(stage: StageSettings, images: int) -> float:
    """Steps of a stage; infinite where only time ends it."""
    if stage.steps is not None:
        return stage.steps
    return math.inf if stage.epochs is None else max(1, math.ceil(stage.epochs * images / stage.batch))


def learning_rate_factor(settings: ScheduleSettings, step: int, progress: float) -> float:
    """Part of the peak learning rate for the update number `step` (from 0), 0…1."""
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    left = 1.0 - progress
    return warm * min(1.0, left / settings.decay if settings.decay else 1.0)


def going_on(recipe: Recipe, images: int, progress: Progress, minutes: float) -> Recipe:
    """The recipe with the limit of time that leaves `minutes` for the stages that are not over.

    Raises `RecipeError` where no step is left, however long it takes.
    """
    stages = recipe.chosen_stages
    last = stages[-1]
    if progress.stage == last.name and progress.step >= stage_steps(last, images):
        limit = "steps" if last.steps is not None else "epochs"
        raise RecipeError(f"all {limit} of the recipe are done: stages.{last.name}.{limit}=N goes on")
    parts = _parts(recipe, images)
    whole, own, spent = sum(parts.values()), parts[progress.stage], progress.stage_seconds / 60.0
    later = sum(list(parts.values())[list(parts).index(progress.stage) + 1 :])
    total = (spent + minutes) * whole / (own + later)
    if later and total * own / whole < spent:  # its share of so little is used up already
        total = minutes * whole / later
    return replace(recipe, minutes=total)


def decaying(recipe: Recipe, progress: Progress, minutes: float) -> Recipe:
    """The recipe of a short end to a run at constant rate: from here its stage decays to 0 within `minutes`.

    Raises `RecipeError` where the stage is not there, or has a decay of its own.
    """
    stage = next((stage for stage in recipe.stages if stage.name == progress.stage), None)
    if stage is None:
        raise RecipeError(f"the run is in stage {progress.stage!r}, which the recipe does not have")
    if stage.schedule.decay:
        raise RecipeError(f"stage {stage.name!r} has a decay of its own, {stage.schedule.decay}: --resume without one")
    in_all = progress.stage_seconds / 60.0 + minutes
    schedule = replace(stage.schedule, decay=minutes / in_all)
    ending = replace(stage, steps=None, epochs=None, share=1.0, schedule=schedule)
    stages = tuple(ending if other.name == stage.name else other for other in recipe.stages)
    return replace(recipe, stages=stages, only=(stage.name,), minutes=in_all)


def _parts(recipe: Recipe, images: int) -> dict[str, float]:
    """What the minutes of a run are divided in proportion to."""
    return {stage.name: stage.share or stage_steps(stage, images) for stage in recipe.chosen_stages}
