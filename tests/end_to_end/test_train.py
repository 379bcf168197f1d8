"""What a person relies on in a long training run: it survives being killed, and spreads over processes."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml

from base_models import create_model, fingerprint, load_checkpoint
from tests.end_to_end.train_runs import finish, last_weights, losses, records, start, wait_for
from tests.tiny_models import tiny_sizes_of
from tests.unit.train.conftest import plain, smooth_image
from tto.cli import main
from tto.interruption import Interrupted
from tto.side.weights import load_side_modules
from tto.train.cli import train
from tto.train.errors import RecipeError
from tto.train.recipe_file import load_recipe
from tto.train.run import print_recipe, train_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
ALL_RECIPES = sorted(RECIPES.glob("*.yaml"))
TWO_PROCESSES = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tto.train")
"""A launcher."""


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    """These tests run on the processor, also where there is a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        smooth_image(number, 96 + 16 * number, 100).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_sizes, pictures) -> Path:
    """Sixty steps in two stages."""
    optimizer = {"name": "muon", "muon_learning_rate": 1e-3, "learning_rate": 5e-4}
    stage = {"crop": 64, "batch": 2, "steps": 30, "optimizer": optimizer, "schedule": {"warmup_steps": 5, "decay": 0.4}}
    tree = {
        "model": {"name": "dcae-small", "config": {key: plain(value) for key, value in tiny_sizes.items()}},
        "data": {"train": [str(pictures)], "val": [str(pictures)]},
        "ema_decay": 0.95,
        "log_every": 1,
        "checkpoints": {"every_steps": 7, "keep": 2},
        "validation": {"images": 1, "samples": 1},
        "stages": [{"name": "one", **stage}, {"name": "two", **stage}],
    }
    path = tmp_path_factory.mktemp("recipe") / "sixty.yaml"
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    train_recipe(recipe, [], run)
    return run


def test_run_folder_has_everything(uninterrupted):
    names = {path.name for path in uninterrupted.iterdir()}
    assert {"recipe.yaml", "environment.json", "metrics.jsonl", "curve.png", "samples", "model.safetensors"} <= names
    assert list((uninterrupted).rglob("events.out.tfevents*"))
    assert {p.name for p in (uninterrupted / "samples").iterdir()} == {"step-00000030-0.png", "step-00000060-0.png"}
    assert len(losses(uninterrupted)) == 60
    assert losses(uninterrupted)[-1] < 0.85 * losses(uninterrupted)[0]


def test_run_killed_twice_resumes_bit_equal_to_an_uninterrupted_one(recipe, uninterrupted, tmp_path, capsys):
    run = tmp_path / "run"
    for checkpoint, arguments in (("step-00000021", (str(recipe), "--out")), ("step-00000044", ("--resume",))):
        process = start(*arguments, str(run))
        wait_for(run / "checkpoints" / checkpoint, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    train_recipe(run / "recipe.yaml", [], run, resume=True)
    assert "stage two" in capsys.readouterr().out
    assert losses(run) == losses(uninterrupted)
    for name in ("model", "average"):
        expected, found = last_weights(uninterrupted, name), last_weights(run, name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_terminated_run_saves_and_says_how_to_continue(recipe, tmp_path):
    run = tmp_path / "run"

    def terminate() -> None:
        while not (run / "checkpoints" / "step-00000007").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(Interrupted, match=f"interrupted: saved at step .*; --resume {run} goes on") as ended:
        train_recipe(recipe, ["trackers=[]"], run)
    assert ended.value.exit_code == 128 + signal.SIGTERM
    assert (run / "model.safetensors").is_file()
    assert 7 <= len(losses(run)) < 60
    assert sorted((run / "checkpoints").iterdir())[-1].name == f"step-{len(losses(run)):08d}"


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux")
def test_full_disk_ends_the_run_and_leaves_the_last_good_checkpoint(recipe, tmp_path):
    run = tmp_path / "run"
    process = start(str(recipe), "--out", str(run), "trackers=[]", "data.val=[]")
    wait_for(run / "checkpoints" / "step-00000007", process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    output = process.communicate(timeout=500)[0]
    assert process.returncode == 2
    good = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert all(name.startswith("step-") for name in good)
    assert f"last good checkpoint: {good[-1]}" in output or "cannot export" in output
    train_recipe(run / "recipe.yaml", ["only=one"], run, resume=True)
    assert len(losses(run)) == 30


def test_two_processes_equal_one_with_the_same_global_batch(recipe, tmp_path):
    """Also with gradients of rate and distortion that are balanced."""
    overrides = ["stages.*.micro_batch=1", "stages.*.steps=10", "stages.two.loss.balance=true", "trackers=[]",
                 "data.val=[]"]  # fmt: skip
    train_recipe(recipe, overrides, tmp_path / "one")
    finish(start(str(recipe), "--out", str(tmp_path / "two"), *overrides, launcher=TWO_PROCESSES))
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 20
    assert max(abs(a - b) / a for a, b in zip(one, two, strict=True)) < 1e-5


def test_two_processes_decay_what_one_trained_and_one_goes_on_with_it(recipe, tmp_path):
    """Half of the crops refined meanwhile, so that in a step one process may have no gradient of g_a."""
    run, ship = tmp_path / "run", tmp_path / "ship"
    overrides = ["only=one", "stages.one.steps=2", "stages.one.schedule.decay=0", "trackers=[]", "data.val=[]"]
    train_recipe(recipe, overrides, run)
    settings = ["stages.one.refine_share=0.5", "stages.one.refine_steps=1"]
    decay = ["--resume", str(run), "--decay-minutes", "0.05", "--out", str(ship), *settings]
    finish(start(*decay, launcher=TWO_PROCESSES))
    decayed = len(losses(ship))
    assert decayed > 2 and losses(ship)[:2] == losses(run) and (ship / "model.safetensors").is_file()
    (ship / "model.safetensors").unlink()
    train_recipe(ship / "recipe.yaml", [], ship, minutes=0.01, resume=True)
    assert len(losses(ship)) > decayed and (ship / "model.safetensors").is_file()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RecipeError, match="--out"):
        patch.setenv("WORLD_SIZE", "2")
        train(str(recipe), ["trackers=[]"])


RESUMED = {
    "grm-small", "exchange-ftic-own", "exchange-tcm-dictionary", "exchange-elic-both", "dcae-ablation-global-token",
    "mbt2018", "mbt2018-mean-vbr",
}  # fmt: skip
"""One recipe of every architecture that no other test resumes."""


@pytest.mark.parametrize("path", ALL_RECIPES, ids=lambda path: path.stem)
def test_every_stage_of_every_recipe_takes_a_few_steps(path, pictures, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("tto.train.building.INITIALIZATION_CROPS", 8)
    name = load_recipe(path, ["minutes=1"]).model.name
    crop = 192 if "msssim" in path.stem else max(64, create_model(name, **tiny_sizes_of(name)).stride)
    sizes = {key: plain(value) for key, value in tiny_sizes_of(name).items()}
    if "baseline" in path.stem:
        sizes["dict_entries"] = 0
    if "baseline" in path.stem or path.stem.rsplit("-")[-1] == "dca":
        sizes["msfa_scales"] = 0
    tree = yaml.safe_load(path.read_text())
    stages = len(tree["stages"])
    if "side" in tree["model"]:
        sizes["lambdas"] = list(load_checkpoint(tiny_checkpoint).config.lambdas)
    overrides = [f"model.config.{key}={value}" for key, value in sizes.items()]
    if "side" in tree["model"]:
        overrides += [f"model.checkpoint={tiny_checkpoint}", "model.name=dcae-small", "model.side.codes=8"]
    elif "checkpoint" in tree["model"]:
        overrides.append(f"model.checkpoint={tiny_checkpoint}")
    overrides += [f"data.train={pictures}", "data.too_small=resize", "log_every=1", "trackers=[]", "data.cache_gib=0.1"]
    steps = 3 if path.stem in RESUMED else 2
    overrides += [f"stages.*.crop={crop}", "stages.*.batch=1", "stages.*.epochs=null", "stages.*.share=null",
                  f"stages.*.steps={steps}"]  # fmt: skip
    if path.stem in RESUMED:
        overrides.append("checkpoints.every_steps=2")
    train_recipe(path, overrides, tmp_path / "run")
    found = [record["stage"] for record in records(tmp_path / "run") if record["kind"] == "train"]
    assert len(found) == steps * stages and len(set(found)) == stages
    trained_for = load_checkpoint(tmp_path / "run" / "model.safetensors").metric
    assert trained_for == ("ms-ssim" if "msssim" in path.stem else "mse")
    if path.stem in RESUMED:
        resumes_its_last_step(path, overrides, tmp_path / "run")


def resumes_its_last_step(recipe: Path, overrides: list[str], run: Path) -> None:
    """Goes back by one checkpoint and comes to the same losses and weights."""
    before, weights, checkpoints = losses(run), last_weights(run, "model"), sorted((run / "checkpoints").iterdir())
    assert [path.name for path in checkpoints[-2:]] == [f"step-{len(before) - 1:08d}", f"step-{len(before):08d}"]
    shutil.rmtree(checkpoints[-1])
    train_recipe(recipe, overrides, run, resume=True)
    assert losses(run) == before
    again = last_weights(run, "model")
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())


@pytest.fixture(scope="module")
def side_recipe(tmp_path_factory, tiny_sizes, tiny_checkpoint, pictures) -> Path:
    """Four side stages of six steps."""
    stage = {"crop": 64, "batch": 2, "steps": 6, "refine_steps": 1, "optimizer": {"learning_rate": 1e-3}}
    trainable = {"ddt": "ddt.*", "msc": "msc.*", "codebook-warm-up": "msc.codebook", "codebook": "msc.*"}
    tree = {
        "model": {
            "name": "dcae-small",
            "config": {key: plain(value) for key, value in tiny_sizes.items()},
            "checkpoint": str(tiny_checkpoint),
            "side": {"codes": 8},
        },
        "data": {"train": [str(pictures)], "val": [str(pictures)]},
        "log_every": 1,
        "checkpoints": {"every_steps": 2, "keep": 20},
        "validation": {"images": 1},
        "trackers": [],
        "stages": [{**stage, "name": n, "objective": n, "trainable": [t]} for n, t in trainable.items()],
    }
    path = tmp_path_factory.mktemp("side") / "side.yaml"
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture(scope="module")
def side_run(side_recipe, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("side-run") / "run"
    train_recipe(side_recipe, [], run)
    return run


def test_side_stages_tell_their_figures_and_leave_the_base_as_it_was(side_run, tiny_checkpoint):
    figures = {record["stage"]: record for record in records(side_run) if record["kind"] == "figures"}
    assert list(figures) == ["ddt", "msc", "codebook-warm-up", "codebook"]
    assert all(len(record["psnr_gained_db_per_quality"]) == 8 for record in figures.values())
    assert {"perplexity", "live_codes", "J_gained_percent"} <= figures["codebook"].keys()
    model = side_run / "model.safetensors"
    assert fingerprint(load_checkpoint(model)) == fingerprint(load_checkpoint(tiny_checkpoint))
    assert load_side_modules(model) is not None


@pytest.mark.parametrize("stopped_at", [4, 14, 20], ids=["ddt", "codebook-warm-up", "codebook"])
def test_side_stage_resumes_bit_equal(side_recipe, side_run, stopped_at, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(side_run, run)
    for checkpoint in (run / "checkpoints").iterdir():
        if checkpoint.name > f"step-{stopped_at:08d}":
            shutil.rmtree(checkpoint)
    train_recipe(side_recipe, [], run, resume=True)
    assert losses(run) == losses(side_run)
    expected, found = last_weights(side_run, "model"), last_weights(run, "model")
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_side_stages_need_a_trained_base(pictures, tmp_path):
    with pytest.raises(RecipeError, match="model.checkpoint: side modules need a trained base"):
        train_recipe(RECIPES / "cgoo-div2k.yaml", [f"data.train={pictures}"], tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_one_stage_starts_from_the_model_of_another_run(recipe, uninterrupted, tmp_path):
    overrides = [
        "only=two",
        f"model.checkpoint={uninterrupted / 'model.safetensors'}",
        "stages.two.steps=2",
        "trackers=[]",
    ]
    train_recipe(recipe, overrides, tmp_path / "run")
    assert losses(tmp_path / "run")[0] < 0.95 * losses(uninterrupted)[0]


def test_model_of_another_size_is_refused_by_name(recipe, uninterrupted, tmp_path):
    overrides = [f"model.checkpoint={uninterrupted / 'model.safetensors'}", "model.config.M=32", "trackers=[]"]
    with pytest.raises(RecipeError, match="does not fit the recipe's model at "):
        train_recipe(recipe, overrides, tmp_path / "run")


def test_checkpoint_can_be_a_shipped_models_name(capsys):
    print_recipe(RECIPES / "dcae-small-continue.yaml", ["minutes=1"])
    assert "checkpoint: dcae-small" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="model.checkpoint: no model 'dcae-tiny': there are dcae-small, "):
        print_recipe(RECIPES / "dcae-small-continue.yaml", ["minutes=1", "model.checkpoint=dcae-tiny"])


def test_run_folder_that_is_taken_is_refused(recipe, uninterrupted):
    with pytest.raises(RecipeError, match="holds a run already; continue it with --resume"):
        train_recipe(recipe, [], uninterrupted)


def test_minutes_limit_a_run_of_any_length(recipe, tmp_path, monkeypatch):
    """By a clock that moves on by a twentieth of a second whenever it is looked at."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 20)
    overrides = ["stages.*.steps=100000", "trackers=[]", "data.val=[]"]
    train_recipe(recipe, overrides, tmp_path / "run", minutes=0.05)
    found = records(tmp_path / "run")
    assert {record["stage"] for record in found} == {"one", "two"}
    assert 2.0 < found[-1]["seconds"] < 3.5
    assert found[-1]["done"] > 0.6
    assert found[-1]["learning_rate_0"] == pytest.approx(1e-3 * (1 - found[-1]["done"]) / 0.4)


def test_not_finite_steps_are_skipped_and_end_the_run(recipe, tmp_path, monkeypatch, capsys):
    from tto.train import objective
    from tto.train.errors import Diverged

    honest = objective.bits
    monkeypatch.setattr("tto.train.objective.bits", lambda p: honest(p) * float("nan"))
    with pytest.raises(Diverged, match="not finite 10 times in a row"):
        train_recipe(recipe, ["trackers=[]", "data.val=[]"], tmp_path / "run")
    assert "step 8: not finite, skipped (9 so far)" in capsys.readouterr().out


def test_print_shows_parameters_steps_and_time(recipe, capsys):
    print_recipe(recipe, [])
    text = capsys.readouterr().out
    assert "# model dcae-small\n#   one: trains 109,826 parameters, about 30 steps of" in text
    small = ["model.config.stage_channels=[8,8,8]", "model.config.head_dims=[8,8,8]", "model.config.M=40",
             "model.config.swin_layers=[0,0,0]", "only=ddt"]  # fmt: skip
    print_recipe(RECIPES / "cgoo-div2k.yaml", small)
    assert "# model dcae\n#   ddt: trains 56,909 parameters, about 50,000 steps of" in capsys.readouterr().out


def test_error_is_one_line_and_exit_code_2(recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe), "stages.0.batch=x", "--out", str(tmp_path / "run")])
    output = "".join(capsys.readouterr())
    assert ended.value.code == 2
    assert "stages.0.batch: found 'x'" in output and output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_precision_the_machine_lacks_is_refused(recipe, tmp_path):
    with pytest.raises(RecipeError, match="precision: found fp16, which needs a GPU"):
        train_recipe(recipe, ["precision=fp16", "trackers=[]"], tmp_path / "run")
