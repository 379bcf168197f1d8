"""Weights in and out."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
from argparse import Namespace
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch

from base_models import (
    CheckpointError,
    create_model,
    elic,
    fingerprint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    tcm,
)
from base_models.checkpoints import canonical_state_dict
from base_models.dcae import DCAE


@pytest.fixture
def saved(small_model, tmp_path):
    save_checkpoint(small_model, tmp_path / "model.safetensors", torch.float16)
    return tmp_path / "model.safetensors"


def test_file_says_which_model_it_is_and_keeps_tables(small_model, saved):
    loaded = load_checkpoint(saved)
    assert loaded.config == small_model.config
    assert np.array_equal(loaded.y_tables().cdfs, small_model.y_tables().cdfs)
    assert np.array_equal(loaded.z_tables().cdfs, small_model.z_tables().cdfs)
    assert not loaded.training
    assert loaded.g_a[0].conv.weight.dtype == torch.float32
    assert os.path.getsize(saved) <= 12_000_000


def test_a_network_made_without_the_registry_is_saved_by_its_class_name(small_model, tmp_path):
    save_checkpoint(DCAE(small_model.config), tmp_path / "model.safetensors")
    assert load_checkpoint(tmp_path / "model.safetensors").config == small_model.config


def test_tensors_without_names_are_of_no_network(tmp_path):
    torch.save({0: torch.zeros(1)}, tmp_path / "ints.pth")
    with pytest.raises(CheckpointError, match="of no network that is known"):
        load_checkpoint(tmp_path / "ints.pth")


def test_fingerprint_is_of_weights_not_of_the_file(saved, tmp_path):
    model = load_checkpoint(saved)
    save_checkpoint(model, tmp_path / "wide.safetensors")
    assert fingerprint(load_checkpoint(tmp_path / "wide.safetensors")) == fingerprint(model)
    with torch.no_grad():
        model.h_a[-1].bias[0] += 1e-6
    assert fingerprint(model) != fingerprint(load_checkpoint(saved))
    assert len(fingerprint(model)) == 8


@pytest.mark.parametrize("where", [0, 8, 2000, -1])
def test_damaged_files_are_refused(saved, where):
    data = bytearray(saved.read_bytes())
    saved.write_bytes(data[:where] if where else b"")
    with pytest.raises(CheckpointError):
        load_checkpoint(saved)


def test_text_missing_and_malicious_files_are_refused(tmp_path):
    (tmp_path / "notes.pth").write_text("hello")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(os.system))
    (tmp_path / "notes.safetensors").write_text("hello")
    for name in ("notes.pth", "evil.pth", "notes.safetensors", "absent.pth"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)


def test_a_network_that_there_is_not_is_named(small_model, tiny_checkpoint, tmp_path):
    torch.save(small_model.state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a.pth: unknown model 'elicc'; known: .*elic"):
        load_checkpoint(tmp_path / "a.pth", "elicc")
    newer = tiny_checkpoint.read_bytes().replace(b'"model":"dcae-small"', b'"model":"dcae-later"')
    (tmp_path / "newer.safetensors").write_bytes(newer)
    with pytest.raises(CheckpointError, match=r"newer.safetensors: unknown model 'dcae-later'; known: "):
        load_checkpoint(tmp_path / "newer.safetensors")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_by_name(small_model, value):
    state = dict(small_model.state_dict())
    state["g_s.0.bias"] = torch.full_like(state["g_s.0.bias"], value)
    with pytest.raises(CheckpointError, match=r"g_s\.0\.bias"):
        load_weights(create_model("dcae-small"), state)


def test_missing_and_unknown_tensors_are_refused_by_name(small_model):
    state = dict(small_model.state_dict())
    del state["dt"]
    with pytest.raises(CheckpointError, match="lacks dt"):
        load_weights(create_model("dcae-small"), state)
    with pytest.raises(CheckpointError, match="zoo"):
        load_weights(create_model("dcae-small"), {**small_model.state_dict(), "zoo": torch.zeros(1)})


WRAPPED = {
    "model_state_dict": lambda state: {"model_state_dict": state, "epoch": 3},
    "net": lambda state: {"net": state, "params": {"lr": 1e-4}},
    "params": lambda state: {"params": state},
    "state_dict in model": lambda state: {"state_dict": {"model": state}},
    "compiled": lambda state: {f"_orig_mod.{key}": state[key] for key in state},
    "compiled, then in parallel": lambda state: {f"module._orig_mod.{key}": state[key] for key in state},
    "a compiled part": lambda state: {key.replace("g_a.", "g_a._orig_mod."): state[key] for key in state},
    "Lightning's model": lambda state: {"state_dict": {f"model.{key}": state[key] for key in state}},
    "in parallel within Lightning": lambda state: {f"model.module.{key}": state[key] for key in state},
    "Lightning's net": lambda state: {"state_dict": {f"net._orig_mod.{key}": state[key] for key in state}},
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_what_trainers_put_around_weights_is_taken_off(small_model, wrapped):
    state = small_model.state_dict()
    found = canonical_state_dict(wrapped(state))
    assert found.keys() == state.keys() and all(found[key] is state[key] for key in state)


def test_tables_that_a_checkpoint_has_stay_where_others_are_built(small_model):
    state = dict(small_model.state_dict())
    for name in ("_quantized_cdf", "_offset", "_cdf_length"):
        state[f"gaussian_conditional.{name}"] = torch.zeros(0, dtype=torch.int32)
    state["entropy_bottleneck.quantiles"] = state["entropy_bottleneck.quantiles"] * 1.5  # of these would come others
    loaded = load_weights(create_model("dcae-small"), state)
    assert np.array_equal(loaded.z_tables().cdfs, small_model.z_tables().cdfs)
    assert np.array_equal(loaded.y_tables().cdfs, small_model.y_tables().cdfs)


def test_a_metric_that_no_network_is_trained_for_is_refused(small_model, tmp_path):
    small_model.metric = "beauty"
    try:
        save_checkpoint(small_model, tmp_path / "model.safetensors")
    finally:
        del small_model.metric
    with pytest.raises(CheckpointError, match=r"its metric is 'beauty', expected one of mse, ms-ssim"):
        load_checkpoint(tmp_path / "model.safetensors")


def test_a_prefix_that_some_tensors_lack_stays(small_model):
    state = {f"model.{key}": value for key, value in small_model.state_dict().items()}
    with pytest.raises(CheckpointError, match="checkpoint lacks"):
        load_weights(create_model("dcae-small"), state | {"criterion.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("thing", "named"),
    [(Namespace(lr=1e-4), "argparse.Namespace"), (np.float64(0.5), r"numpy[\w.]*\.scalar"), (os.system, r"\w+.system")],
)
def test_objects_beside_tensors_are_named_and_the_file_is_not_called_damaged(small_model, tmp_path, thing, named):
    torch.save({"state_dict": small_model.state_dict(), "thing": thing}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "a.pth")
    told = rf"\S*a.pth holds objects beside tensors \({named}\), which are not loaded: save its state_dict alone"
    assert re.fullmatch(told, str(error.value))


TABLES = {f"{layer}.trans_block.msa.relative_position_params" for layer in ("g_a.1", "g_a.3", "g_a.5", "h_a.1")}


@pytest.mark.parametrize("shape", [(), (1,), (0, 0, 0, 0)])
@pytest.mark.parametrize("keys", [elic.OWN_KEYS, tcm.OWN_KEYS | TABLES], ids=["elic", "tcm"])
def test_tensors_of_shapes_that_none_has_are_refused(tmp_path, keys, shape):
    torch.save({key: torch.zeros(shape) for key in keys}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        load_checkpoint(tmp_path / "a.pth")


def test_failed_save_leaves_the_old_file(small_model, saved):
    before = saved.read_bytes()
    broken = create_model("dcae-small")
    with torch.no_grad():
        broken.g_a[-1].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(CheckpointError):
        save_checkpoint(broken, saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


# --- what cannot be --------------------------------------------------------------------------------


@pytest.fixture
def rewritten(tiny_checkpoint, tmp_path):
    """`rewritten(config, **changes)`: a weights file with fields of its configuration replaced and tensors changed."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    def rewrite(config: Mapping = MappingProxyType({}), **changes: Callable):
        with safe_open(tiny_checkpoint, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
            metadata = file.metadata()
        metadata["config"] = json.dumps(json.loads(metadata["config"]) | dict(config))
        changed = {key: changes[key](value).contiguous() if key in changes else value for key, value in state.items()}
        save_file(changed, tmp_path / "changed.safetensors", metadata)
        return tmp_path / "changed.safetensors"

    return rewrite


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("swin_layers", [10**6] * 3),
        ("M", 10**6),
        ("dict_entries", 10**9),
        ("num_slices", 0),
        ("num_slices", 7),
        ("head_dims", [0, 0, 0]),
        ("head_dims", [16, 16]),
        ("hyper_head_dim", 7),
        ("window", 8.5),
        ("stage_channels", 32),
        ("lambdas", []),
        ("lambdas", [0.01, -1]),
        ("lambdas", [0.01, None]),
    ],
)
def test_configurations_that_cannot_be_are_refused_by_the_field(rewritten, field, value):
    name = {"num_slices": "num_slices|M", "hyper_head_dim": "N"}.get(field, field)
    with pytest.raises(CheckpointError, match=rf"configuration cannot be: ({name}) is"):
        load_checkpoint(rewritten({field: value}))


def test_a_large_configuration_takes_no_memory_before_shapes_are_compared(rewritten):
    """4096 channels at every stage would be 20 GB of weights."""
    path = rewritten({"stage_channels": [4096] * 3, "M": 4096, "N": 4096, "dict_heads": 256, "dict_head_dim": 256})
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="has shape .*, expected"):
        load_checkpoint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**20  # kB


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("entropy_bottleneck._quantized_cdf", "entropy_bottleneck has a coding table"),
        ("gaussian_conditional._quantized_cdf", "gaussian_conditional has a coding table"),
        ("gaussian_conditional.scale_table", "levels of sigma"),
    ],
)
def test_coding_tables_that_cannot_be_are_refused_by_name(rewritten, key, words):
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(rewritten(**{key: lambda table: table.flip(-1)}))
