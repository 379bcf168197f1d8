"""A run at constant rate goes on and on, and is ended beside itself."""

from __future__ import annotations

import hashlib
import itertools
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from tto.cli import app
from tto.errors import FileError
from tto.train.errors import RecipeError, ResumeError
from tto.train.run import decay_run, print_recipe, train_recipe
from tto.train.run_folder import RunFolder, read_metrics

STEPS = 6
SECONDS = STEPS + 0.5  # at a second per step
MINUTES = SECONDS / 60


@pytest.fixture(autouse=True)
def second_per_step(monkeypatch):
    """A clock that a run looks at once per step."""
    clock = SimpleNamespace(monotonic=partial(next, itertools.count()))
    monkeypatch.setattr("tto.train.engine.time", clock)


@pytest.fixture
def run(tiny_recipe, write_recipe, tmp_path) -> Path:
    """Three steps at constant rate of a recipe that only time ends."""
    stage = {**tiny_recipe["stages"][0], "name": "constant", "steps": 3}
    path = write_recipe({**tiny_recipe, "stages": [stage], "data": {"train": tiny_recipe["data"]["train"]}})
    train_recipe(path, [], tmp_path / "run")
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 3", "steps: 1000000"))
    return tmp_path / "run"


def test_a_run_goes_on_by_the_name_of_a_recipe_that_only_time_ends(tiny_recipe, write_recipe, tmp_path):
    stage = {key: value for key, value in tiny_recipe["stages"][0].items() if key != "steps"}
    data = {"train": tiny_recipe["data"]["train"]}
    path = write_recipe({**tiny_recipe, "stages": [{**stage, "share": 1.0}], "data": data})
    train_recipe(path, [], tmp_path / "run", MINUTES)
    train_recipe(path, [], tmp_path / "run", MINUTES, resume=True)
    train_recipe(path, [], tmp_path / "run", resume=True)  # it is over: the limit has not gone
    assert len(training(tmp_path / "run")) > STEPS


def contents(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def training(folder: Path) -> list[dict]:
    return [record for record in read_metrics(folder / "metrics.jsonl") if record["kind"] == "train"]


def last(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(sorted((folder / "checkpoints").glob("step-*"))[-1] / f"{name}.safetensors")


def test_a_run_that_another_process_trains_is_left_alone(run):
    """As when it is still saving after Ctrl-C: both would write into one folder."""
    before = contents(run)
    with RunFolder(run).claimed(), pytest.raises(FileError, match="in use by another run; wait for its end"):
        train_recipe(run / "recipe.yaml", [], run, MINUTES, resume=True)
    assert contents(run) == before
    train_recipe(run / "recipe.yaml", [], run, MINUTES, resume=True)


def test_decay_lets_the_rate_fall_in_another_folder_and_leaves_the_run(run, tmp_path):
    before, start = contents(run), last(run, "model")
    model = decay_run(run, [], tmp_path / "ship", MINUTES)
    assert contents(run) == before
    assert model == tmp_path / "ship" / "model.safetensors" and model.is_file()
    records = training(tmp_path / "ship")
    assert [record["total_steps"] for record in records] == list(range(1, 3 + STEPS + 1))
    peak, rates = records[0]["learning_rate_0"], [record["learning_rate_0"] for record in records[3:]]
    assert rates == pytest.approx([peak * (1 - (step + 1) / SECONDS) for step in range(STEPS)])
    assert not torch.equal(start["g_a.6.weight"], last(tmp_path / "ship", "model")["g_a.6.weight"])


def test_run_that_was_decayed_goes_on_at_its_rate_for_the_minutes_asked_for(run, tmp_path):
    decay_run(run, [], tmp_path / "ship", MINUTES)
    train_recipe(run / "recipe.yaml", [], run, MINUTES, resume=True)
    train_recipe(run / "recipe.yaml", [], run, MINUTES, resume=True)
    records = training(run)
    assert len(records) == 3 + 2 * STEPS and len({record["learning_rate_0"] for record in records}) == 1


def test_interrupted_decay_resumes_to_its_end(run, tmp_path, monkeypatch):
    ship = tmp_path / "ship"
    with monkeypatch.context() as patch:
        patch.setattr("tto.train.engine.Trainer.run", lambda self: None)
        decay_run(run, [], ship, MINUTES)
    assert last(ship, "model")["g_a.6.weight"].equal(last(run, "model")["g_a.6.weight"])
    train_recipe(ship / "recipe.yaml", [], ship, resume=True)
    rates = [record["learning_rate_0"] for record in training(ship)]
    assert len(rates) == 3 + STEPS and rates[-1] == pytest.approx(rates[0] * 0.5 / SECONDS)


def test_what_would_go_on_can_be_printed(run, capsys):
    """The seconds that are over come on top of the minutes that are asked for."""
    before, seconds = contents(run), training(run)[-1]["seconds"] + 1
    print_recipe(run / "recipe.yaml", [], 2.0, run)
    minutes = yaml.safe_load(capsys.readouterr().out)["minutes"]
    assert minutes == pytest.approx(2 + seconds / 60) and contents(run) == before


def test_a_rate_that_would_rise_again_is_told(run, tmp_path, capsys):
    decay_run(run, [], tmp_path / "ship", MINUTES)
    train_recipe(tmp_path / "ship" / "recipe.yaml", [], tmp_path / "ship", MINUTES, resume=True)
    assert "the learning rate was at 0% of its peak, and goes on with" in capsys.readouterr().out
    train_recipe(run / "recipe.yaml", [], run, MINUTES, resume=True)
    assert "the learning rate was" not in capsys.readouterr().out


def test_decay_of_a_stage_that_the_recipe_does_not_have_is_refused(run, tmp_path):
    with pytest.raises(RecipeError, match="the run is in stage 'constant', which the recipe does not have"):
        decay_run(run, ["stages.constant.name=other"], tmp_path / "ship", MINUTES)


def test_decay_may_train_on_something_else(run, tmp_path):
    decay_run(run, ["stages.constant.batch=1", "seed=9"], tmp_path / "ship", MINUTES)
    train_recipe(tmp_path / "ship" / "recipe.yaml", [], tmp_path / "ship", resume=True)
    with pytest.raises(ResumeError, match="stages.constant.batch"):
        train_recipe(run / "recipe.yaml", ["stages.constant.batch=1"], run, resume=True)


def test_decay_may_have_another_optimizer_than_the_run(run, tmp_path):
    settings = ["muon_learning_rate=5e-3", "learning_rate=3e-3", "aux_learning_rate=2e-2", "betas=[0.8, 0.9]"]
    decay_run(run, [f"stages.constant.optimizer.{setting}" for setting in settings], tmp_path / "ship", MINUTES)
    first = training(tmp_path / "ship")[3]
    left = 1 - 1 / SECONDS
    assert [first[f"learning_rate_{group}"] for group in (0, 1)] == pytest.approx([5e-3 * left, 3e-3 * left])
    checkpoint = sorted((tmp_path / "ship" / "checkpoints").iterdir())[-1]
    groups, quantiles = (torch.load(checkpoint / f)["param_groups"] for f in ("optimizer.bin", "quantiles.pt"))
    assert [(group["peak"], group["betas"]) for group in groups] == [(5e-3, (0.8, 0.9)), (3e-3, (0.8, 0.9))]
    assert quantiles[0]["lr"] == 2e-2


def test_damaged_checkpoint_is_not_decayed(run, tmp_path):
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    (checkpoint / "optimizer.bin").write_bytes(b"")
    with pytest.raises(ResumeError, match="optimizer.bin is damaged"):
        decay_run(run, [], tmp_path / "ship", MINUTES)
    assert not (tmp_path / "ship").exists()


def test_decay_that_cannot_begin_can_be_asked_for_again(run, tmp_path):
    with pytest.raises(ResumeError, match="does not fit"):
        decay_run(run, ["model.config.dict_entries=4"], tmp_path / "ship", MINUTES)
    assert not (tmp_path / "ship").exists()
    decay_run(run, [], tmp_path / "ship", MINUTES)


def test_decay_does_not_overwrite_a_run(run):
    with pytest.raises(RecipeError, match="holds a run already"):
        decay_run(run, [], run, MINUTES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "R", "--out", "S"], "--decay-minutes M goes with --resume RUN --out FOLDER"),
        (["--resume", "R", "--decay-minutes", "2"], "--decay-minutes M goes with --resume RUN --out FOLDER"),
        (["--resume", "R", "--out", "S", "--decay-minutes", "2", "--minutes", "3"], "no --minutes"),
        (["--resume", "R", "--minutes", "-3"], "--minutes: found -3, expected a number of minutes above 0"),
        (["--resume", "R", "--minutes", "nan"], "--minutes: found nan, expected a number"),
        (["--resume", "R", "--out", "S", "--decay-minutes", "inf"], "--decay-minutes: found inf, expected a number"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message):
    error = CliRunner().invoke(app, ["train", *arguments]).exception
    assert isinstance(error, RecipeError) and message in str(error)
