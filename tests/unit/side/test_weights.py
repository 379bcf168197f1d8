"""Side modules in a weights file."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file

from base_models import CheckpointError, checkpoint_bytes, fingerprint, load_checkpoint, save_checkpoint
from tto.models import shipped_models, weights_folder
from tto.side.weights import SideConfig, SideModules, load_side_modules, save_with_side_modules


@pytest.fixture
def side():
    torch.manual_seed(0)
    return SideModules(SideConfig(channels=160, codes=7, width=16))


@pytest.fixture
def narrow(small_model, tmp_path):
    """A model as it is after its weights were stored in 16 bits."""
    save_checkpoint(small_model, tmp_path / "base.safetensors", torch.float16)
    return load_checkpoint(tmp_path / "base.safetensors")


def test_file_gives_back_base_and_side_modules(narrow, side, tmp_path):
    path = tmp_path / "both.safetensors"
    save_with_side_modules(narrow, side, path)
    loaded = load_side_modules(path)
    assert loaded.config == side.config
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in side.state_dict().items())
    assert loaded.fingerprint == side.fingerprint and len(side.fingerprint) == 4
    base = load_checkpoint(path)
    assert fingerprint(base) == fingerprint(narrow)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_base_keeps_its_values_and_its_size_in_16_bits(narrow, side, tmp_path):
    path = tmp_path / "both.safetensors"
    save_with_side_modules(narrow, side, path, torch.float16)
    assert fingerprint(load_checkpoint(path)) == fingerprint(narrow)
    extra = os.path.getsize(path) - os.path.getsize(tmp_path / "base.safetensors")
    assert extra < 2 * sum(value.numel() for value in side.state_dict().values()) + 5000


def test_base_that_needs_32_bits_keeps_them(small_model, side, tmp_path):
    path = tmp_path / "both.safetensors"
    save_with_side_modules(small_model, side, path, torch.float16)
    assert fingerprint(load_checkpoint(path)) == fingerprint(small_model)


def test_file_without_side_modules_has_none(narrow, tmp_path):
    assert load_side_modules(tmp_path / "base.safetensors") is None


def test_fingerprint_is_of_what_a_decoder_uses(side):
    before = side.fingerprint
    with torch.no_grad():
        side.ddt.encoder.head.bias.add_(1)
        side.msc.encoder[0].bias.add_(1)
    assert side.fingerprint == before
    with torch.no_grad():
        side.msc.codebook[0, 0] += 1
    assert side.fingerprint != before


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("msc.codebook", torch.full((7, 160), torch.nan), "side.msc.codebook holds values that are not finite"),
        ("msc.frequencies", torch.ones(7, dtype=torch.int64), "do not sum"),
        ("msc.codebook", torch.zeros(6, 160), "side modules are damaged"),
    ],
)
def test_damaged_side_modules_are_refused(narrow, side, tmp_path, key, value, message):
    tensors = {f"side.{name}": tensor for name, tensor in side.state_dict().items()} | {f"side.{key}": value}
    metadata = {"side": '{"channels": 160, "codes": 7, "width": 16}'}
    path = tmp_path / "damaged.safetensors"
    if value.isfinite().all():
        path.write_bytes(checkpoint_bytes(narrow, extra=tensors, metadata=metadata))
        with pytest.raises(CheckpointError, match=message):
            load_side_modules(path)
    else:
        with pytest.raises(CheckpointError, match=message):
            path.write_bytes(checkpoint_bytes(narrow, extra=tensors, metadata=metadata))


def test_weights_that_ship_fit_their_limit():
    for name in shipped_models():
        path = weights_folder() / f"{name}.safetensors"
        assert os.path.getsize(path) <= 12_000_000
        load_side_modules(path)


@pytest.mark.parametrize(
    "size", [{"codes": 10**9}, {"channels": 10**9}, {"width": 10**9}, {"codes": 8}, {"width": "7"}, {"width": 4096}]
)
def test_sizes_that_are_not_those_of_the_tensors_are_refused_before_memory_is_taken(side, tmp_path, monkeypatch, size):
    tensors = {f"side.{name}": tensor for name, tensor in side.state_dict().items()}
    metadata = {"side": json.dumps({"channels": 160, "codes": 7, "width": 16} | size)}
    path = tmp_path / "huge.safetensors"
    save_file(tensors, path, metadata)
    monkeypatch.setattr("tto.side.weights.MSC", lambda *sizes: pytest.fail("it is being built"))
    with pytest.raises(CheckpointError, match="side modules are damaged"):
        load_side_modules(path)
