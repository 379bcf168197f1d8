"""What a recipe amounts to, before it is run: parameters per stage, steps, and time on this machine."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from base_models import BaseModel
from tto.train.building import build_model, stage_network
from tto.train.console import duration
from tto.train.crops import Batch
from tto.train.errors import MissingModule
from tto.train.images import find_images
from tto.train.optimizers import create_optimizer, freeze_all_but, trainable_names
from tto.train.recipe import Recipe, StageSettings
from tto.train.recipe_file import dump_recipe
from tto.train.schedule import StageLength, stage_length
from tto.train.side_model import BaseWithSide
from tto.train.step import StepContext, accumulate_gradients

MEASURED_PIXELS = 512**2


@dataclass(frozen=True)
class StageSummary:
    """One stage: parameters trained, steps (infinite if only time ends it), seconds per step; or why it cannot run."""

    name: str
    parameters: int
    length: StageLength | None
    seconds_per_step: float | None
    problem: str | None = None

    def line(self) -> str:
        if self.problem:
            return f"  {self.name}: cannot run yet: {self.problem}"
        text = f"  {self.name}: trains {self.parameters:,} parameters"
        steps = math.inf if self.length is None else self.length.steps
        if self.seconds_per_step is None or self.length is None:
            return text + (f", {steps:,.0f} steps" if math.isfinite(steps) else ", steps unknown without images")
        seconds = min(self.length.seconds, steps * self.seconds_per_step)
        return text + (
            f", about {min(steps, seconds / self.seconds_per_step):,.0f} steps "
            f"of {self.seconds_per_step:.2g} s in {duration(seconds)} on this machine"
        )


def summarize(recipe: Recipe, accelerator: Accelerator, measure: bool = True) -> list[StageSummary]:
    """Summary of every chosen stage; `measure` takes two small steps of each to estimate time."""
    model = build_model(recipe).to(accelerator.device)
    images = recipe.data.expected_images
    if recipe.data.train:
        images = len(find_images(recipe.data.train, recipe.data.half_size_copies))
    summaries = []
    for stage in recipe.chosen_stages:
        try:
            names = trainable_names(model, stage)
        except MissingModule as error:
            summaries.append(StageSummary(stage.name, 0, None, None, str(error)))
            continue
        freeze_all_but(model, names)
        count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        needs_images = any(s.steps is None and s.epochs is not None for s in recipe.chosen_stages)
        length = stage_length(recipe, stage, images or 0) if images or not needs_images else None
        seconds = _seconds_per_step(recipe, stage, model, names, accelerator) if measure else None
        summaries.append(StageSummary(stage.name, count, length, seconds))
    return summaries


def describe(recipe: Recipe, summaries: list[StageSummary]) -> str:
    """The resolved recipe as YAML, below the summaries as comments."""
    lines = [f"model {recipe.model.name}", *(summary.line() for summary in summaries)]
    return "".join(f"# {line}\n" for line in lines) + dump_recipe(recipe)


def _seconds_per_step(
    recipe: Recipe, stage: StageSettings, model: BaseModel | BaseWithSide, names: list[str], accelerator: Accelerator
) -> float:
    """Time of a step, from the second run of a few crops (of 512² pixels together), scaled to the whole batch."""
    optimizer = create_optimizer(model, names, stage.optimizer)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    network, objective = stage_network(model, stage)
    local = stage.batch / accelerator.num_processes
    count = max(1, min(int(local), MEASURED_PIXELS // stage.crop**2))
    context = StepContext(accelerator, network, parameters, optimizer, objective, 1.0, count, (recipe.seed, 0))
    crops = torch.rand(count, 3, stage.crop, stage.crop, device=accelerator.device)
    batch = Batch(crops, torch.linspace(0, 1, count, dtype=torch.float64))
    for parameter_group in optimizer.param_groups:
        parameter_group["lr"] = 0.0
    start = gradients = end = 0.0
    for number in range(2):
        start = time.monotonic()
        accumulate_gradients(context, batch, number)
        gradients = time.monotonic()
        optimizer.step()
        optimizer.zero_grad()
        end = time.monotonic()
    return (gradients - start) * local / count + (end - gradients)
