"""A training run: stage after stage, with checkpoints, validation and a log.

recipe ─► images ─► crops ─┐
                           ├─► step (loss, gradients) ─► optimizer ─► averaged weights ─► model.safetensors
model ── frozen but for ───┘                                 └─► validation, checkpoint, log
         the stage's part
"""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from base_models import BaseModel
from tto.interruption import Interrupted, Interruption
from tto.metrics import MS_SSIM_MIN_SIDE
from tto.train.building import build_model, export, initialize_latents, stage_network, wrap
from tto.train.checkpoints import (
    Progress,
    TrainingState,
    branch_checkpoint,
    last_checkpoint,
    load_model_state,
    load_optimizer_state,
    read_progress,
    save_run,
    verify_checkpoint,
)
from tto.train.console import Console
from tto.train.crops import Batch, CropPlan, CropSampler, prefetch
from tto.train.ema import AveragedModel
from tto.train.errors import RecipeError, ResumeError
from tto.train.identity import run_identity
from tto.train.images import ImageStore, find_images
from tto.train.objective import RateDistortion
from tto.train.optimizers import (
    QuantileOptimizer,
    create_optimizer,
    freeze_all_but,
    set_learning_rates,
    trainable_names,
)
from tto.train.recipe import Recipe, StageSettings
from tto.train.report import Report
from tto.train.run_folder import RunFolder
from tto.train.schedule import StageLength, going_on, learning_rate_factor, stage_length
from tto.train.side_figures import side_figures
from tto.train.side_model import BaseWithSide
from tto.train.side_stages import SideStage
from tto.train.step import StepContext, accumulate_gradients
from tto.train.validation import validate, validation_images
from tto.train.watch import Averages, FiniteWatch, HyperLatentWatch

EXPORT_DTYPES = {"fp32": None, "fp16": torch.float16}


@dataclass(frozen=True)
class ActiveStage:
    """A stage that is being run."""

    settings: StageSettings
    length: StageLength
    context: StepContext
    quantiles: QuantileOptimizer
    batches: Generator[Batch, None, None]


class Trainer:
    """One run of one recipe."""

    def __init__(self, recipe: Recipe, folder: RunFolder, accelerator: Accelerator, console: Console, new: bool = True):
        """A `new` run begins with the weights that the recipe names; of another one `restore` finds all weights."""
        self.recipe = recipe
        self.folder = folder
        self.accelerator = accelerator
        self.report = Report(folder, accelerator, console)
        data = recipe.data
        self.store = ImageStore(find_images(data.train, data.half_size_copies), int(data.cache_gib * 2**30))
        self.identity = run_identity(recipe, len(self.store))
        self.model = build_model(recipe, with_checkpoint=new).to(accelerator.device)
        multiple = self.model.stride
        smallest = max(MS_SSIM_MIN_SIDE if stage.loss.distortion == "ms-ssim" else 1 for stage in recipe.chosen_stages)
        self.validation_images = (
            validation_images(data.val, recipe.validation.images, multiple, accelerator.device, smallest)
            if data.val
            else []
        )
        if recipe.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.average: AveragedModel | None = None
        self.progress = Progress(stage=recipe.chosen_stages[0].name)
        self.interruption = Interruption()
        self.stop_asked = False  # in any process
        self._checkpoint: Path | None = None  # to go on from
        self._last_done = {"validation": 0.0, "checkpoint": 0.0}  # seconds of the run

    @property
    def best_model(self) -> BaseModel | BaseWithSide:
        """The averaged weights where they are kept, else the weights."""
        return self.model if self.average is None else cast("BaseModel | BaseWithSide", self.average.model)

    # ---- the run --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains all chosen stages, or what is left of them after `restore`. Raises `TrainingError`.

        Ctrl-C and SIGTERM end it after the step with a checkpoint. Raises `Interrupted` then.
        """
        for stage in self.recipe.chosen_stages:  # before days of training, not after
            trainable_names(self.model, stage)
            if stage.batch % self.accelerator.num_processes:
                processes = f"{self.accelerator.num_processes} processes"
                raise RecipeError(f"stage {stage.name}: batch {stage.batch} does not divide among {processes}")
        checkpoint = self._checkpoint
        if checkpoint is None:
            initialize_latents(self.model, self.store, self.recipe, self.accelerator.device)
            self.average = self._new_average()
        stages = self.recipe.chosen_stages
        first = [stage.name for stage in stages].index(self.progress.stage)
        with self.interruption.caught("finishing the step and saving"):
            for stage in stages[first:]:
                if stage.name != self.progress.stage:
                    self.progress = replace(self.progress, stage=stage.name, step=0, stage_seconds=0.0)
                self._run_stage(stage, checkpoint)
                checkpoint = None
                if self.stop_asked:
                    kept = f"saved at step {self.progress.total_steps}; --resume {self.folder.path} goes on"
                    raise Interrupted(kept, self.interruption.number or signal.SIGTERM)

    def branch_from(self, run: RunFolder, checkpoint: Path) -> None:
        """Takes over a checkpoint of another run, and its metrics; that run stays as it is.

        Raises `ResumeError` where processes took different ones, as the run had saved meanwhile.
        """
        if self.accelerator.is_main_process:
            branch_checkpoint(checkpoint, self.folder.checkpoints, self.identity)
        self.folder.take_metrics(run)
        self.accelerator.wait_for_everyone()
        if last_checkpoint(self.folder.checkpoints).name != checkpoint.name:
            raise ResumeError(f"{run.path} saved a checkpoint just now: begin again")

    def restore(self, minutes: float | None = None) -> None:
        """Goes back to the last checkpoint, from where `run` goes on: for `minutes`, or as long as the recipe says.

        Raises `ResumeError`.
        """
        self._checkpoint = last = last_checkpoint(self.folder.checkpoints)
        self.average = self._new_average()
        verify_checkpoint(last, self.identity)
        self.progress = read_progress(last)
        load_model_state(last, self.model, self.average, self.progress)
        if self.progress.stage not in [stage.name for stage in self.recipe.chosen_stages]:
            raise ResumeError(f"{last} is in stage {self.progress.stage!r}, which is not among the chosen ones")
        if minutes is not None:
            before = self._rate()
            self.recipe = going_on(self.recipe, len(self.store), self.progress, minutes)
            if self._rate() > before:
                rates = f"{before:.0%} of its peak, and goes on with {self._rate():.0%}"
                self.report.console.say(f"the learning rate was at {rates}: it falls over a part of the whole time")
        self.folder.forget_after(self.progress.total_steps)
        self.report.console.say(f"resuming {last}: stage {self.progress.stage}, step {self.progress.step}")

    def _rate(self) -> float:
        """Part of the peak learning rate with which the run goes on."""
        stage = next(stage for stage in self.recipe.stages if stage.name == self.progress.stage)
        done = stage_length(self.recipe, stage, len(self.store)).progress(
            self.progress.step, self.progress.stage_seconds
        )
        return learning_rate_factor(stage.schedule, self.progress.step, done)

    def _new_average(self) -> AveragedModel | None:
        return AveragedModel(self.model, self.recipe.ema_decay) if self.recipe.ema_decay else None

    # ---- one stage ------------------------------------------------------------------------------------------

    def _run_stage(self, settings: StageSettings, checkpoint: Path | None) -> None:
        """Steps until the stage is over, then a checkpoint and a validation; no validation where it is to stop."""
        stage = self._start_stage(settings)
        if checkpoint is not None:
            load_optimizer_state(self.accelerator, checkpoint, stage.context.optimizer, stage.quantiles)
        clock = Clock(self.progress, self.accelerator)
        self._last_done = dict.fromkeys(self._last_done, self.progress.total_seconds)
        averages, finite, hyper = Averages(), FiniteWatch(self.progress.skipped_steps), HyperLatentWatch()
        while True:
            self.stop_asked = clock.tell(self.interruption.asked())
            done = stage.length.progress(self.progress.step, self.progress.stage_seconds)
            if done >= 1.0 or self.stop_asked:
                break
            values = self._step(stage, done, finite)
            if values:
                if "bpp_z" in values:
                    hyper.check(values["bpp_z"])
                averages.add(values)
            if self.progress.step % self.recipe.log_every == 0:
                rates = [group["lr"] for group in stage.context.optimizer.param_groups]
                self.report.training(self.progress, averages.take(), done, rates)
                self.report.skipped_images(self.store)
            self.report.position(self.progress, done)
            self._do_what_is_due(stage)
        self._save(stage)  # first: validation may want memory that is not there
        if not self.stop_asked:
            self._validate(stage)
        stage.batches.close()
        self.accelerator.free_memory()

    def _start_stage(self, settings: StageSettings) -> ActiveStage:
        recipe, accelerator = self.recipe, self.accelerator
        processes, batch = accelerator.num_processes, settings.batch
        number = recipe.stages.index(settings)
        names = trainable_names(self.model, settings)
        freeze_all_but(self.model, names)
        self.model.train()
        optimizer = accelerator.prepare_optimizer(create_optimizer(self.model, names, settings.optimizer))
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        data = recipe.data
        plan = CropPlan(recipe.seed, number, settings.crop, settings.batch, data.too_small == "resize", data.zoom)
        sampler = CropSampler(self.store, plan, accelerator.process_index, processes)
        network, objective = stage_network(self.model, settings)
        count = sum(parameter.numel() for parameter in parameters)
        self.report.console.say(f"stage {settings.name}: {count:,} parameters, {batch} crops of {settings.crop}²")
        return ActiveStage(
            settings=settings,
            length=stage_length(recipe, settings, len(self.store)),
            context=StepContext(
                accelerator=accelerator,
                network=wrap(network, accelerator, recipe.compile),
                parameters=parameters,
                optimizer=optimizer,
                objective=objective,
                clip_norm=settings.optimizer.clip_norm,
                micro_batch=min(batch // processes, settings.micro_batch or batch),
                seed=(recipe.seed, number),
                balance=settings.loss.balance,
            ),
            quantiles=QuantileOptimizer(self.model, settings.optimizer.aux_learning_rate),
            batches=prefetch(sampler, self.progress.step, recipe.data.workers, accelerator.device),
        )

    def _step(self, stage: ActiveStage, done: float, finite: FiniteWatch) -> dict[str, float]:
        """One update of the weights; none, and no values, where it would not be finite."""
        optimizer = stage.context.optimizer
        set_learning_rates(optimizer, learning_rate_factor(stage.settings.schedule, self.progress.step, done))
        values = accumulate_gradients(stage.context, next(stage.batches), self.progress.step)
        good = finite.check(values["loss"], values["gradient_norm"], self.progress.step)
        has_gradients = any(parameter.grad is not None for parameter in stage.context.parameters)
        if has_gradients and (good or self.accelerator.scaler is not None):  # a loss scaler skips by itself and learns
            optimizer.step()
        optimizer.zero_grad()
        if good:
            values["aux_loss"] = stage.quantiles.step().item()
            if self.average is not None:
                self.average.update(self.model)
        else:
            self.report.console.say(f"step {self.progress.step}: not finite, skipped ({finite.skipped} so far)")
        self.progress.step += 1
        self.progress.total_steps += 1
        self.progress.skipped_steps = finite.skipped
        return values if good else {}

    # ---- now and then ---------------------------------------------------------------------------------------

    def _do_what_is_due(self, stage: ActiveStage) -> None:
        for name, settings, action in (
            ("checkpoint", self.recipe.checkpoints, self._save),
            ("validation", self.recipe.validation, self._validate),
        ):
            by_steps = settings.every_steps and self.progress.step % settings.every_steps == 0
            passed = self.progress.total_seconds - self._last_done[name]
            if by_steps or (settings.every_minutes and passed >= settings.every_minutes * 60.0):
                action(stage)
                self._last_done[name] = self.progress.total_seconds

    def _validate(self, stage: ActiveStage) -> None:
        if self.validation_images and self.accelerator.is_main_process:
            objective, samples = stage.context.objective, self.recipe.validation.samples
            if isinstance(objective, SideStage):
                judged = cast(SideStage, stage_network(self.best_model, stage.settings)[1])
                self.report.figures(self.progress, side_figures(judged, self.validation_images))
            elif isinstance(objective, RateDistortion):
                result = validate(cast(BaseModel, self.best_model), self.validation_images, objective, samples)
                self.report.validation(self.progress, result)
        self.accelerator.wait_for_everyone()

    def _save(self, stage: ActiveStage) -> None:
        self.progress.average_updates = self.average.updates if self.average else 0
        state = TrainingState(self.model, self.average, stage.quantiles)
        keep = self.recipe.checkpoints.keep
        save_run(self.accelerator, self.folder.checkpoints, state, self.progress, self.identity, keep)
        if self.accelerator.is_main_process:
            export(self.best_model, self.folder.model, EXPORT_DTYPES[self.recipe.export_dtype])


class Clock:
    """Keeps the seconds of a `Progress`, the same in every process."""

    def __init__(self, progress: Progress, accelerator: Accelerator):
        self.progress = progress
        self.accelerator = accelerator
        self._start = time.monotonic()
        self._earlier = progress.stage_seconds, progress.total_seconds

    def tell(self, stop_asked: bool) -> bool:
        """Updates the seconds; returns whether any process was asked to stop."""
        passed = time.monotonic() - self._start
        if self.accelerator.num_processes > 1:
            own = [passed if self.accelerator.is_main_process else 0.0, float(stop_asked)]
            own = torch.tensor(own, device=self.accelerator.device)
            passed, stops = cast(Tensor, self.accelerator.reduce(own, reduction="sum")).tolist()
            stop_asked = stops > 0
        self.progress.stage_seconds = self._earlier[0] + passed
        self.progress.total_seconds = self._earlier[1] + passed
        return stop_asked
