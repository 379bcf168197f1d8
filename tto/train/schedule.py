"""Learning rate and length of a stage as functions of how far it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        parts = {s.name: s.share or stage_steps(s, images) for s in recipe.chosen_stages}
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
