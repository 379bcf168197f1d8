"""From a recipe file to a finished run folder."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from tto.train.console import Console
from tto.train.engine import Trainer
from tto.train.errors import RecipeError
from tto.train.recipe import Recipe
from tto.train.recipe_file import load_recipe
from tto.train.run_folder import RunFolder
from tto.train.summary import describe, summarize


def train_recipe(
    path: Path, overrides: list[str], folder: Path, minutes: float | None = None, resume: bool = False
) -> Path:
    """Trains as the recipe file says; returns the path of the exported model.

    Raises `TrainingError`, or `Interrupted` where a signal ended it.
    """
    recipe = load_recipe(path, overrides, minutes)
    if not recipe.data.train:
        raise RecipeError(f"{path}: data.train: no images given, for example data.train=photos")
    if recipe.model.side and recipe.model.checkpoint is None:
        raise RecipeError(f"{path}: model.checkpoint: side modules need a trained base, for example BASE.safetensors")
    if not resume and (folder / "checkpoints").is_dir():
        raise RecipeError(f"{folder} holds a run already; continue it with --resume {folder}, or choose another --out")
    accelerator = create_accelerator(recipe, folder)
    console = Console(quiet=not accelerator.is_main_process)
    run_folder = RunFolder(folder, writes=accelerator.is_main_process)
    try:
        trainer = Trainer(recipe, run_folder, accelerator, console)
        run_folder.start(recipe)
        accelerator.init_trackers("training")
        trainer.run(resume)
        console.say(f"model: {run_folder.model}")
    finally:
        console.close()
        accelerator.end_training()
    return run_folder.model


def print_recipe(path: Path, overrides: list[str], minutes: float | None = None) -> None:
    """Prints the resolved recipe with parameters, steps and time of every stage. Raises `TrainingError`."""
    recipe = load_recipe(path, overrides, minutes)
    accelerator = create_accelerator(recipe, None)
    print(describe(recipe, summarize(recipe, accelerator)), end="")


def create_accelerator(recipe: Recipe, folder: Path | None) -> Accelerator:
    """Accelerate's view of the machine, as the recipe wants to use it; trackers write below `folder`.

    Raises `RecipeError` where the machine cannot do what the recipe wants.
    """
    AcceleratorState._reset_state()  # an earlier run of this process may have had another precision
    precision = "no" if recipe.precision == "fp32" else recipe.precision
    trackers = list(recipe.trackers) if folder is not None else None
    try:
        accelerator = Accelerator(mixed_precision=precision, log_with=trackers or None, project_dir=str(folder or "."))
    except ValueError as error:
        raise RecipeError(f"precision {recipe.precision}, trackers {', '.join(recipe.trackers)}: {error}") from None
    if recipe.precision == "fp16" and accelerator.device.type == "cpu":
        raise RecipeError("precision: found fp16, which needs a GPU; allowed on this machine: fp32, bf16")
    return accelerator
