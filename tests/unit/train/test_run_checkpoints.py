from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from base_models import fingerprint, load_checkpoint
from tto.train.errors import OutOfMemory, RecipeError, ResumeError, SaveError
from tto.train.run import train_recipe
from tto.train.run_folder import read_metrics

OFTEN = ["checkpoints.every_steps=1", "checkpoints.keep=2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_sizes, photos) -> Path:
    """The folder of a run of one step, with its recipe beside it."""
    folder = tmp_path_factory.mktemp("run")
    sizes = {k: list(v) if isinstance(v, tuple) else v for k, v in tiny_sizes.items()}
    recipe = {
        "model": {"name": "dcae-small", "config": sizes},
        "data": {"train": [str(photos)]},
        "ema_decay": 0.9,
        "trackers": [],
        "stages": [{"name": "only", "crop": 64, "batch": 1, "steps": 2}],
    }
    (folder / "tiny.yaml").write_text(json.dumps(recipe))
    train_recipe(folder / "tiny.yaml", ["stages.0.steps=2", "log_every=1"], folder / "run")
    return folder


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


def last(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step-*"))[-1]


def resume(run: Path, *overrides: str) -> None:
    train_recipe(run / "recipe.yaml", list(overrides), run, resume=True)


def test_finished_run_resumes_to_the_same_model(run):
    before = load_file(run / "model.safetensors")
    (run / "model.safetensors").unlink()
    resume(run)
    after = load_file(run / "model.safetensors")
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_last_checkpoints_are_kept(run):
    train_recipe(run / "recipe.yaml", ["stages.0.steps=5", *OFTEN], run.parent / "other")
    assert [p.name for p in sorted((run.parent / "other" / "checkpoints").iterdir())] == [
        "step-00000004",
        "step-00000005",
    ]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "average.safetensors", "optimizer.bin", "quantiles.pt", "progress.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_file_is_refused_by_name(run, name, damage):
    path = last(run) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.raises(ResumeError, match=name.replace(".", r"\.")):
        resume(run)


def test_damaged_manifest_is_refused(run):
    (last(run) / "manifest.json").write_text("{")
    with pytest.raises(ResumeError, match="no readable manifest.json"):
        resume(run)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=4", "made with seed = 0, not 4|made with seed = None, not 4"),
        ("stages.only.batch=2", "made with stages.only.batch = 1, not 2"),
        ("model.config.M=32", "made with model.config"),
    ],
)
def test_checkpoint_of_another_recipe_is_refused_by_key(run, override, message):
    with pytest.raises(ResumeError, match=message):
        resume(run, override)


def test_what_helps_a_run_that_diverged_or_ran_out_of_memory_may_change(run):
    resume(run, "stages.0.steps=3", "stages.*.optimizer.learning_rate=1e-6", "stages.*.micro_batch=1", "precision=fp32")
    assert last(run).name == "step-00000003"


def test_checkpoints_of_when_less_might_change_go_on(run):
    path = last(run) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["identity"] |= {"precision": "bf16", "stages.only.micro_batch": 7}
    path.write_text(json.dumps(manifest))
    resume(run, "stages.0.steps=3")
    assert last(run).name == "step-00000003"


def test_a_run_goes_on_without_the_weights_that_it_began_with(finished, photos, tmp_path):
    first = shutil.copy(finished / "run" / "model.safetensors", tmp_path / "first.safetensors")
    train_recipe(finished / "tiny.yaml", [f"model.checkpoint={first}"], tmp_path / "run")
    Path(first).unlink()
    resume(tmp_path / "run", "stages.0.steps=3")
    assert last(tmp_path / "run").name == "step-00000003"


def test_side_modules_go_on_without_the_base_that_they_began_with(finished, tmp_path):
    first = Path(shutil.copy(finished / "run" / "model.safetensors", tmp_path / "first.safetensors"))
    recipe = json.loads((finished / "tiny.yaml").read_text())
    recipe["model"] |= {"checkpoint": str(first), "side": {"codes": 8}}
    recipe["stages"][0] |= {"objective": "ddt", "trainable": ["ddt.*"]}
    (tmp_path / "side.yaml").write_text(json.dumps(recipe))
    train_recipe(tmp_path / "side.yaml", [], tmp_path / "run")
    base = fingerprint(load_checkpoint(first))
    first.unlink()
    resume(tmp_path / "run", "stages.0.steps=3")
    assert fingerprint(load_checkpoint(tmp_path / "run" / "model.safetensors")) == base


def test_a_run_without_a_checkpoint_can_be_begun_anew(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("tto.train.checkpoints.save_file", lambda *_: exec("raise OSError(28, 'No space left')"))
        with pytest.raises(SaveError, match="last good checkpoint: none"):
            train_recipe(finished / "tiny.yaml", ["log_every=1"], tmp_path / "run")
    train_recipe(finished / "tiny.yaml", ["log_every=1"], tmp_path / "run")
    steps = [record["step"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert steps == [1, 2]
    with pytest.raises(RecipeError, match="holds a run already"):
        train_recipe(finished / "tiny.yaml", [], tmp_path / "run")


def test_what_was_trained_is_saved_before_a_validation_that_fails(finished, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("tto.train.engine.validate", lambda *_: exec("raise MemoryError"))
    often = ["validation.every_steps=1", f"data.val={photos}", "checkpoints.every_steps=1"]
    with pytest.raises(OutOfMemory, match="smaller pictures in data.val"):
        train_recipe(finished / "tiny.yaml", often, tmp_path / "run")
    assert last(tmp_path / "run").name == "step-00000001" and (tmp_path / "run" / "model.safetensors").is_file()
    with pytest.raises(OutOfMemory):
        resume(tmp_path / "run", "validation.every_steps=0", "checkpoints.every_steps=0")
    assert last(tmp_path / "run").name == "step-00000002"


def test_tensor_of_another_shape_is_refused_by_name(run):
    checkpoint = last(run)
    weights = load_file(checkpoint / "model.safetensors")
    weights["g_a.0.conv.bias"] = torch.zeros(5)
    save_file(weights, checkpoint / "model.safetensors")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    from tto.train.checkpoints import _digest

    manifest["files"]["model.safetensors"] = _digest(checkpoint / "model.safetensors")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResumeError, match="g_a.0.conv.bias"):
        resume(run)


def test_unfinished_checkpoint_is_not_used(run):
    (run / "checkpoints" / ".unfinished-00000009").mkdir()
    before = load_file(run / "model.safetensors")
    (run / "model.safetensors").unlink()
    resume(run)
    after = load_file(run / "model.safetensors")
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_nothing_to_resume_is_said(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ResumeError, match="has no checkpoint to resume from"):
        resume(run)


def test_full_disk_leaves_the_last_good_checkpoint(run, monkeypatch):
    def full(state, path):
        Path(path).write_bytes(b"part")
        raise OSError(28, "No space left on device")

    kept = last(run)
    monkeypatch.setattr("tto.train.checkpoints.save_file", full)
    with pytest.raises(SaveError, match=f"No space left on device; last good checkpoint: {kept.name}"):
        resume(run, "stages.0.steps=4", *OFTEN)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [kept.name]
    monkeypatch.undo()
    (run / "checkpoints" / ".unfinished-00000009").mkdir()  # of a run that was killed
    resume(run, "stages.0.steps=4", *OFTEN)
    assert last(run).name == "step-00000004"
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_exported_model_is_the_averaged_one_and_codes(run):
    model = load_checkpoint(run / "model.safetensors")
    average = load_file(last(run) / "average.safetensors")
    torch.testing.assert_close(model.g_a[0].conv.weight, average["g_a.0.conv.weight"], rtol=1e-3, atol=1e-6)
    assert model.z_prior.has_tables
    assert model.aux_loss().item() < 5.0  # quantiles fit the averaged distribution


class Hostile:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "executed"))


@pytest.mark.parametrize("states", ["hostile", "foreign"])
def test_states_of_generators_that_cannot_be_loaded_are_refused_by_name(run, tmp_path, states):
    name = "random_states_0.pkl"
    torch.save(Hostile(tmp_path / "trace") if states == "hostile" else {"random_state": 7}, last(run) / name)
    manifest = json.loads((last(run) / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256((last(run) / name).read_bytes()).hexdigest()
    (last(run) / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ResumeError, match=name):
        resume(run)
    assert not (tmp_path / "trace").exists()
