"""Training on a device: steps, validation, checkpoints, going on, and side modules."""

from __future__ import annotations

import pytest
from accelerate import PartialState
from accelerate.state import AcceleratorState

from base_models import load_checkpoint
from tests.unit.train.conftest import photos, tiny_recipe, write_recipe  # noqa: F401 (fixtures)
from tto.side.weights import load_side_modules
from tto.train.run import train_recipe
from tto.train.run_folder import read_metrics

SIDE_STAGES = [
    {"name": "ddt", "objective": "ddt", "trainable": ["ddt.*"]},
    {"name": "msc", "objective": "msc", "trainable": ["msc.encoder.*", "msc.decoder.*"]},
    {"name": "warm-up", "objective": "codebook-warm-up", "trainable": ["msc.codebook"]},
    {"name": "codebook", "objective": "codebook", "trainable": ["msc.*"]},
]


@pytest.fixture
def network(tiny_recipe) -> dict:  # noqa: F811
    """The recipe's, of two qualities."""
    return tiny_recipe["model"] | {"config": tiny_recipe["model"]["config"] | {"lambdas": [0.004, 0.03]}}


@pytest.fixture(autouse=True)
def on_device(device, monkeypatch):
    """Accelerate trains there, from a start that is found quickly."""
    monkeypatch.setattr("tto.train.building.INITIALIZATION_CROPS", 4)
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", device.type)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_run_goes_on_there_from_its_checkpoint(tiny_recipe, network, write_recipe, tmp_path, device):  # noqa: F811
    stage = tiny_recipe["stages"][0] | {"steps": 2, "refine_share": 0.5, "refine_steps": 1, "micro_batch": 1}
    tree = tiny_recipe | {
        "model": network,
        "stages": [stage],
        "checkpoints": {"every_steps": 1, "keep": 9},
        "precision": "fp32",
    }
    run = tmp_path / "run"
    model = train_recipe(write_recipe(tree), [], run)
    whole = load_checkpoint(model).state_dict()
    for checkpoint in sorted((run / "checkpoints").glob("step-*"))[1:]:
        checkpoint.rename(tmp_path / checkpoint.name)
    train_recipe(run / "recipe.yaml", [], run, resume=True)
    again = load_checkpoint(model).state_dict()
    assert all((again[name] == values).all() for name, values in whole.items())
    assert PartialState().device.type == device.type
    kinds = [record["kind"] for record in read_metrics(run / "metrics.jsonl")]
    assert kinds.count("train") == 2 and "validation" in kinds


def test_side_modules_learn_there(tiny_recipe, write_recipe, tiny_checkpoint, tmp_path, device):  # noqa: F811
    stages = [{**stage, "crop": 64, "batch": 2, "steps": 1, "refine_steps": 1} for stage in SIDE_STAGES]
    network = tiny_recipe["model"] | {"checkpoint": str(tiny_checkpoint), "side": {"codes": 8}}
    path = write_recipe(tiny_recipe | {"model": network, "stages": stages, "precision": "fp32"})
    assert load_side_modules(train_recipe(path, [], tmp_path / "run")) is not None
    assert PartialState().device.type == device.type
