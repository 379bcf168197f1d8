from __future__ import annotations

import pytest
import torch

from tto.train.building import build_model
from tto.train.errors import DataError, OutOfMemory, RecipeError
from tto.train.recipe import ModelSettings, Recipe, StageSettings
from tto.train.recipe_file import check_recipe
from tto.train.run import create_accelerator, train_recipe
from tto.train.run_folder import read_metrics


@pytest.mark.parametrize(("multiplies", "precision"), [(True, "bf16"), (False, "no")])
def test_automatic_precision_is_bfloat16_where_the_machine_multiplies_it(monkeypatch, multiplies, precision):
    monkeypatch.setattr("tto.train.run.descends_in_bfloat16", lambda device: multiplies)
    stage = StageSettings(name="a", crop=64, batch=1, steps=1)
    recipe = Recipe(model=ModelSettings("dcae-small"), stages=(stage,), precision="auto", trackers=())
    assert create_accelerator(recipe, None).mixed_precision == precision


def test_a_stage_balances_its_gradients_where_its_recipe_says_so(tiny_recipe, write_recipe, tmp_path):
    records = []
    for balance in ("true", "false"):
        overrides = ["only=first", "stages.first.steps=1", "data.val=[]", f"stages.first.loss.balance={balance}"]
        train_recipe(write_recipe(tiny_recipe), overrides, tmp_path / balance)
        records.append(read_metrics(tmp_path / balance / "metrics.jsonl")[0])
    balanced, plain = records
    assert balanced["gradient_norm"] != pytest.approx(plain["gradient_norm"], rel=0.01)
    assert balanced["loss"] == plain["loss"] == pytest.approx(balanced["rate"] + balanced["distortion"])


def test_a_step_in_bfloat16_has_nearly_the_loss_of_one_in_float32(tiny_recipe, write_recipe, tmp_path):
    losses = []
    for precision in ("bf16", "fp32"):
        overrides = ["only=first", "stages.first.steps=1", "data.val=[]", f"precision={precision}"]
        train_recipe(write_recipe(tiny_recipe), overrides, tmp_path / precision)
        losses.append(read_metrics(tmp_path / precision / "metrics.jsonl")[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]


def test_machine_that_cannot_compile_says_so_in_one_line(monkeypatch, tiny_recipe, write_recipe, tmp_path):
    def compiler(graph, inputs):
        raise RuntimeError("no compiler\nand much more")

    compile = torch.compile
    monkeypatch.setattr("torch.compile", lambda model: compile(model, backend=compiler))
    path = write_recipe(tiny_recipe)
    with pytest.raises(RecipeError, match="compile: this machine cannot .*; compile=false trains without") as raised:
        train_recipe(path, ["compile=true", "stages.*.batch=1"], tmp_path / "run")
    assert "\n" not in str(raised.value)


def test_memory_that_runs_out_is_one_line_that_says_what_takes_less(monkeypatch, tiny_recipe, write_recipe, tmp_path):
    def run(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tto.train.run.Trainer.run", run)
    with pytest.raises(OutOfMemory, match="not enough memory: .*micro_batch=N"):
        train_recipe(write_recipe(tiny_recipe), [], tmp_path / "run")


def test_crops_and_pictures_too_small_for_ms_ssim_are_refused(tiny_recipe, write_recipe, tmp_path):
    path = write_recipe(tiny_recipe)
    overrides = ["stages.*.loss.distortion=ms-ssim"]
    with pytest.raises(RecipeError, match="first.crop: found 64; MS-SSIM takes 161 and more"):
        train_recipe(path, overrides, tmp_path / "run")
    with pytest.raises(DataError, match="pixels; expected 161 a side"):
        train_recipe(path, [*overrides, "stages.*.crop=192"], tmp_path / "run")


@pytest.mark.parametrize(("name", "crop", "multiple"), [("dcae-small", 100, 64), ("ftic-small", 192, 128)])
def test_crops_that_a_model_does_not_take_are_refused(tiny_recipe, name, crop, multiple):
    stages = [tiny_recipe["stages"][0] | {"crop": crop}]
    recipe = check_recipe(tiny_recipe | {"model": {"name": name}, "stages": stages}, "r")
    with pytest.raises(RecipeError, match=f"first.crop: found {crop}; {name} takes multiples of {multiple}"):
        build_model(recipe)


@pytest.mark.parametrize(("name", "weights", "times"), [("dcae-small", [0.5, 0.5], 1), ("grm-small", [0.1, 0.9], 3)])
def test_weights_of_predictions_that_a_model_does_not_make_are_refused(tiny_recipe, name, weights, times):
    stages = [tiny_recipe["stages"][0] | {"loss": {"rate_weights": weights}}]
    recipe = check_recipe(tiny_recipe | {"model": {"name": name}, "stages": stages}, "r")
    with pytest.raises(RecipeError, match=f"first.loss.rate_weights: found 2 weights; {name} predicts y {times} times"):
        build_model(recipe)
