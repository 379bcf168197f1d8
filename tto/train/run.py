"""From a recipe file to a finished run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import parse_flag_from_env
from torch._dynamo.exc import TorchDynamoException

from tto.device import descends_in_bfloat16
from tto.memory import ran_out
from tto.train.checkpoints import finished_checkpoints, last_checkpoint, read_progress
from tto.train.console import Console
from tto.train.engine import Trainer
from tto.train.errors import OutOfMemory, RecipeError
from tto.train.images import find_images
from tto.train.recipe import Recipe
from tto.train.recipe_file import load_recipe
from tto.train.run_folder import RunFolder
from tto.train.schedule import decaying, going_on
from tto.train.summary import describe, summarize


def train_recipe(
    path: Path, overrides: list[str], folder: Path, minutes: float | None = None, resume: bool = False
) -> Path:
    """Trains as the recipe file says; returns the path of the exported model.

    With `resume` the run in `folder` goes on, for `minutes` more or else until its recipe is done.
    Raises `TrainingError`, or `Interrupted` where a signal ended it.
    """
    limit = _limit_of(folder) if resume else []
    recipe = load_recipe(path, [*limit, *overrides], None if resume else minutes)
    if not recipe.data.train:
        raise RecipeError(f"{path}: data.train: no images given, for example data.train=photos")
    if recipe.model.side and recipe.model.checkpoint is None:
        raise RecipeError(f"{path}: model.checkpoint: side modules need a trained base, for example BASE.safetensors")
    if not resume:
        _refuse_used(folder)

    def begin(trainer: Trainer) -> None:
        if resume:
            trainer.restore(minutes)
        elif trainer.accelerator.is_main_process:
            _refuse_used(folder)  # nobody else can use it any more
            trainer.folder.clear()

    return _train(recipe, folder, begin, new=not resume)


def _limit_of(folder: Path) -> list[str]:
    """An override with the minutes of a run, which the recipe that it began with need not have."""
    noted = RunFolder(folder, writes=False).recipe
    minutes = load_recipe(noted).minutes if noted.is_file() else None
    return [] if minutes is None else [f"minutes={minutes}"]


def decay_run(run: Path, overrides: list[str], folder: Path, minutes: float) -> Path:
    """Ends a run at constant rate in another folder; returns the path of the exported model.

    From the last checkpoint of `run`, which stays as it is and can go on, the rate falls to 0 within `minutes`;
    overrides may change what is trained on meanwhile. Raises `TrainingError`, or `Interrupted`.
    """
    source = RunFolder(run, writes=False)
    checkpoint = last_checkpoint(source.checkpoints)
    recipe = decaying(load_recipe(source.recipe, overrides), read_progress(checkpoint), minutes)
    _refuse_used(folder)

    def begin(trainer: Trainer) -> None:
        if trainer.accelerator.is_main_process:
            _refuse_used(folder)  # nobody else can use it any more
        try:
            trainer.branch_from(source, checkpoint)
            trainer.restore()
        except BaseException:
            trainer.folder.clear()
            raise

    return _train(recipe, folder, begin, new=False)


def _refuse_used(folder: Path) -> None:
    if finished_checkpoints(RunFolder(folder, writes=False).checkpoints):
        raise RecipeError(f"{folder} holds a run already; continue it with --resume {folder}, or choose another --out")


def _train(recipe: Recipe, folder: Path, begin: Callable[[Trainer], None], new: bool) -> Path:
    """A run from where `begin` puts it; a `new` one begins with the weights that the recipe names."""
    accelerator = create_accelerator(recipe, folder)
    console = Console(quiet=not accelerator.is_main_process)
    run_folder = RunFolder(folder, writes=accelerator.is_main_process)
    try:
        trainer = Trainer(recipe, run_folder, accelerator, console, new)
        with run_folder.claimed():
            begin(trainer)
            run_folder.start(trainer.recipe)
            accelerator.init_trackers("training")
            trainer.run()
        console.say(f"model: {run_folder.model}")
    except TorchDynamoException as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(f"compile: this machine cannot ({reason}); compile=false trains without") from None
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        fewer = "stages.*.micro_batch=N takes fewer crops at once, smaller pictures in data.val less for a validation"
        raise OutOfMemory(f"not enough memory: {fewer}") from error
    finally:
        console.close()
        accelerator.end_training()
    return run_folder.model


def print_recipe(path: Path, overrides: list[str], minutes: float | None = None, resume: Path | None = None) -> None:
    """Prints the resolved recipe with parameters, steps and time of every stage: of the run in the folder `resume` as
    it would go on. Raises `TrainingError`.
    """
    limit = [] if resume is None else _limit_of(resume)
    recipe = load_recipe(path, [*limit, *overrides], None if resume else minutes)
    if resume is not None and minutes is not None:
        images = len(find_images(recipe.data.train, recipe.data.half_size_copies))
        progress = read_progress(last_checkpoint(RunFolder(resume, writes=False).checkpoints))
        recipe = going_on(recipe, images, progress, minutes)
    accelerator = create_accelerator(recipe, None)
    print(describe(recipe, summarize(recipe, accelerator)), end="")


def create_accelerator(recipe: Recipe, folder: Path | None) -> Accelerator:
    """Accelerate's view of the machine, as the recipe wants to use it; trackers write below `folder`.

    Raises `RecipeError` where the machine cannot do what the recipe wants.
    """
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    cpu = not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    state = PartialState(cpu=cpu)
    precision = recipe.precision
    if precision == "auto":
        precision = "bf16" if descends_in_bfloat16(cast(torch.device, state.device)) else "fp32"
    precision = "no" if precision == "fp32" else precision
    trackers: list[Any] = list(recipe.trackers) if folder is not None else []
    try:
        accelerator = Accelerator(
            cpu=cpu, mixed_precision=precision, log_with=trackers or None, project_dir=str(folder or ".")
        )
    except ValueError as error:
        raise RecipeError(f"precision {recipe.precision}, trackers {', '.join(recipe.trackers)}: {error}") from None
    if recipe.precision == "fp16" and accelerator.device.type == "cpu":
        raise RecipeError("precision: found fp16, which needs a GPU; allowed on this machine: fp32, bf16")
    return accelerator
