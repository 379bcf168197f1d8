"""`tto train`: the command line of training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str | None, typer.Argument(help="Recipe file (YAML); with --resume the run's own.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example data.train=photos")] = None,
    minutes: Annotated[float | None, typer.Option(help="Limit of time; stages fit themselves to it.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to continue.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/RECIPE-DATE when not given.")] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Show recipe, steps and time; train nothing.")] = False,
) -> None:
    """Train a model as a recipe says."""
    from tto.train.errors import RecipeError
    from tto.train.run import print_recipe, train_recipe

    values = list(overrides or ())
    if recipe is not None and "=" in recipe:
        values.insert(0, recipe)
        recipe = None
    if recipe is None and resume is None:
        raise RecipeError("which recipe? for example: tto train recipes/dcae-small.yaml data.train=photos")
    path = Path(recipe) if recipe is not None else resume / "recipe.yaml"
    if print_only:
        print_recipe(path, values, minutes)
        return
    folder = resume or out or Path("runs") / f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    train_recipe(path, values, folder, minutes, resume is not None)
