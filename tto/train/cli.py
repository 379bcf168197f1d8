"""`tto train`: the command line of training."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Annotated

import typer

EPILOG = """Examples:

tto train recipes/dcae-small.yaml --print --minutes 120

tto train recipes/dcae-small.yaml --minutes 120 data.train=PHOTOS data.val=OTHER_PHOTOS

tto train --resume runs/dcae-small-20260101-120000"""


def train(
    recipe: Annotated[str | None, typer.Argument(help="Recipe file (YAML); with --resume the run's own.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, for example data.train=photos")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Limit of time; stages fit themselves to it. With --resume: so much longer.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to continue.")] = None,
    decay_minutes: Annotated[
        float | None,
        typer.Option(help="With --resume RUN --out FOLDER: RUN stays, FOLDER ends it with a rate falling to 0."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/RECIPE-DATE when not given.")] = None,
    print_only: Annotated[bool, typer.Option("--print", help="Show recipe, steps and time; train nothing.")] = False,
) -> None:
    """Train a model as a recipe says."""
    from tto.train.errors import RecipeError
    from tto.train.run import decay_run, print_recipe, train_recipe

    for option, value in (("--minutes", minutes), ("--decay-minutes", decay_minutes)):
        if value is not None and not 0 < value < math.inf:
            raise RecipeError(f"{option}: found {value:g}, expected a number of minutes above 0")
    values = list(overrides or ())
    if recipe is not None and "=" in recipe:
        values.insert(0, recipe)
        recipe = None
    if recipe is not None:
        path = Path(recipe)
    elif resume is not None:
        path = resume / "recipe.yaml"
    else:
        raise RecipeError("which recipe? for example: tto train recipes/dcae-small.yaml --minutes 9 data.train=photos")
    if (decay_minutes is not None) != (resume is not None and out is not None):
        raise RecipeError("--decay-minutes M goes with --resume RUN --out FOLDER, and these two go only with it")
    if decay_minutes is not None and resume is not None and out is not None:
        if recipe is not None or minutes is not None:
            raise RecipeError("--decay-minutes takes the recipe of the run, and no --minutes")
        decay_run(resume, values, out, decay_minutes)
        return
    if print_only:
        print_recipe(path, values, minutes, resume)
        return
    if resume is None and out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("several processes need --out FOLDER: each would name another by its clock")
    folder = resume or out or Path("runs") / f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    train_recipe(path, values, folder, minutes, resume is not None)
