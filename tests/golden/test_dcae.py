"""The default-size network against numbers of the published code (design: names, shapes and arithmetic agree)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from base_models import CheckpointError, create_model, load_checkpoint, load_weights, published
from base_models.published import StreamError, compress, compress_bin, decompress, decompress_bin

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from fill import fill  # noqa: E402

RELATIVE_TOLERANCE = 1e-4
BITS_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE / "dcae_seed0_256x256.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def published_state():
    """Weights as the published code would save them, filled from their names."""
    model = create_model("dcae")
    state = model.state_dict()
    filled = {key: fill(key, tuple(value.shape)) for key, value in state.items()}
    return {key: state[key] if array is None else torch.from_numpy(array) for key, array in filled.items()}


@pytest.fixture(scope="module")
def model(published_state):
    return load_weights(create_model("dcae"), published_state)


@pytest.fixture(scope="module")
def image(golden):
    return torch.from_numpy(golden["image"]).permute(2, 0, 1)[None].float() / 255


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours[0].numpy() - theirs).max() / np.abs(theirs).max())


def test_names_and_shapes_are_those_of_published_checkpoints(model):
    published = json.loads((HERE / "dcae_keys.json").read_text())
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == published
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 119.4


@torch.inference_mode()
def test_latents_means_scales_and_reconstruction_agree(model, golden, image):
    y = model.analysis(image)
    medians = model.z_medians()
    z_hat = (model.hyper_analysis(y) - medians).round() + medians
    symbols = torch.from_numpy(golden["y"] - golden["means"]).round()[None].chunk(5, 1)
    walk = model.walk(z_hat, 1.0, lambda i, mu, sigma: symbols[i] + mu)
    assert relative_error(y, golden["y"]) <= RELATIVE_TOLERANCE
    assert relative_error(walk.mu, golden["means"]) <= RELATIVE_TOLERANCE
    assert relative_error(walk.sigma, golden["scales"]) <= RELATIVE_TOLERANCE
    assert relative_error(model.synthesis(walk.y_hat), golden["x_hat"]) <= RELATIVE_TOLERANCE


@torch.inference_mode()
def test_estimated_bits_agree(model, golden, image):
    likelihoods = model(image)["likelihoods"]
    for name in ("y", "z"):
        bits = -likelihoods[name].double().log2().sum().item()
        assert bits == pytest.approx(float(golden[f"{name}_bits"]), rel=BITS_TOLERANCE)


@pytest.fixture
def published_choice(model, golden, monkeypatch):
    """Tables are chosen by the published code's own σ, where ours differs by float32's rounding alone.

    Of 81,920 σ some ten lie within 1e-5 of a table's boundary: there another machine may fall on the other side.
    """
    choose, parts = published._scale_indexes, iter(model.split_y(torch.from_numpy(golden["scales"])[None]))

    def choose_as_published(model, sigma):
        theirs = next(parts)
        assert torch.allclose(sigma, theirs, rtol=RELATIVE_TOLERANCE, atol=RELATIVE_TOLERANCE)
        return choose(model, theirs)

    monkeypatch.setattr(published, "_scale_indexes", choose_as_published)


def test_published_streams_are_decoded_to_published_pixels(model, golden, published_choice):
    """And are, byte for byte, what their symbols are written as: `decompress` compares."""
    strings = [[golden["y_stream"].tobytes()], [golden["z_stream"].tobytes()]]
    pixels = (decompress(model, strings, (4, 4))["x_hat"][0] * 255).round().numpy()
    assert np.abs(pixels - golden["decoded"].astype(float)).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streams_without_close_choices_are_decoded_on_every_machine(model, dtype):
    """A corner of the picture of which no σ lies within 3e-5 of a boundary, written by us on another day."""
    with np.load(HERE / "dcae_seed0_64x64.npz") as corner:
        strings = [[corner["y_stream"].tobytes()], [corner["z_stream"].tobytes()]]
        decoded = corner["decoded"].astype(float)
    pixels = (decompress(model, strings, (1, 1), dtype)["x_hat"][0] * 255).round().numpy()
    assert np.abs(pixels - decoded).max() <= 1


def test_streams_written_are_as_long_as_those_of_the_published_code(model, golden, image):
    """Within a symbol or two: those that lie in the middle between two levels may be rounded otherwise here."""
    (y_string,), (z_string,) = compress(model, image)["strings"]
    assert abs(len(z_string) - golden["z_stream"].size) <= 4
    assert abs(len(y_string) - golden["y_stream"].size) <= 8


def test_bin_file_round_trips_with_its_size(model, golden, image):
    data = compress_bin(model, image[..., :100, :130])
    assert data[:4] == bytes([0, 100, 0, 130])
    streams = compress(model, functional.pad(image[..., :100, :130], (63, 63, 14, 14)))
    whole = decompress(model, streams["strings"], streams["shape"])["x_hat"]
    assert torch.equal(decompress_bin(model, data), whole[..., 14:114, 63:193])
    with pytest.raises(StreamError):
        decompress_bin(model, data[:-4])
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(StreamError):
        decompress_bin(model, bytes(damaged))


def test_legacy_checkpoint_is_renamed(published_state, tmp_path, model):
    """DataParallel prefix, `state_dict` wrapper and entropy-bottleneck names of older CompressAI."""
    old_names = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}
    legacy = {}
    for key, value in published_state.items():
        if key.startswith("entropy_bottleneck"):
            for new, old in old_names.items():
                key = key.replace(new, old)
        legacy[f"module.{key}"] = value
    assert "module.entropy_bottleneck._matrix0" in legacy
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 3, "state_dict": legacy}, path)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.entropy_bottleneck.matrices[0], model.entropy_bottleneck.matrices[0])
    assert torch.equal(loaded.g_a[0].conv.weight, model.g_a[0].conv.weight)


def test_checkpoint_of_another_shape_is_refused_by_name(published_state):
    wrong = {**published_state, "dt": torch.zeros(2, 2)}
    with torch.device("meta"):
        model = create_model("dcae")
    with pytest.raises(CheckpointError, match="dt has shape"):
        load_weights(model, wrong)
