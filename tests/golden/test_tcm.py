"""TCM against numbers of the published code, and its checkpoints in every layout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from base_models import create_model, load_checkpoint, load_weights, published
from base_models.published import compress, decompress

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from fill import fill  # noqa: E402

RELATIVE_TOLERANCE = 1e-4
BITS_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE / "tcm_n64_seed0_256x256.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def published_state():
    """Weights as the published code would save them, filled from their names."""
    state = create_model("tcm").state_dict()
    filled = {key: fill(key, tuple(value.shape)) for key, value in state.items()}
    return {key: state[key] if array is None else torch.from_numpy(array) for key, array in filled.items()}


@pytest.fixture(scope="module")
def model(published_state):
    return load_weights(create_model("tcm"), published_state)


@pytest.fixture(scope="module")
def image(golden):
    return torch.from_numpy(golden["image"]).permute(2, 0, 1)[None].float() / 255


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours[0].numpy() - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(("name", "keys"), [("tcm", "tcm_n64_keys.json"), ("tcm-n128", "tcm_n128_keys.json")])
def test_names_and_shapes_are_those_of_published_checkpoints(name, keys):
    model = create_model(name)
    model.update_tables()
    published = json.loads((HERE / keys).read_text())
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == published


@torch.inference_mode()
def test_latents_means_scales_and_reconstruction_agree(model, golden, image):
    y = model.analysis(image)
    medians = model.z_medians()
    z_hat = (model.hyper_analysis(y) - medians).round() + medians
    symbols = model.split_y(torch.from_numpy(golden["y"] - golden["means"]).round()[None])  # as published, where close
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
    """Tables are chosen by the published code's own σ: ours differs by float32's rounding, which is enough for another
    machine to fall on the other side of a table's boundary.
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


def test_streams_written_are_as_long_as_those_of_the_published_code(model, golden, image):
    """Within a symbol or two: those that lie in the middle between two levels may be rounded otherwise here."""
    (y_string,), (z_string,) = compress(model, image)["strings"]
    assert abs(len(z_string) - golden["z_stream"].size) <= 4
    assert abs(len(y_string) - golden["y_stream"].size) <= 8


def test_checkpoint_of_an_older_compressai_is_renamed(published_state, model, tmp_path):
    """DataParallel prefix and entropy-bottleneck names of CompressAI < 1.2.5, as in the published files."""
    old = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}
    legacy = {}
    for key, value in published_state.items():
        if key.startswith("entropy_bottleneck"):
            for new, name in old.items():
                key = key.replace(new, name)
        legacy[f"module.{key}"] = value
    torch.save({"epoch": 3, "state_dict": legacy}, tmp_path / "mse_lambda_0.013.pth.tar")
    loaded = load_checkpoint(tmp_path / "mse_lambda_0.013.pth.tar", "tcm").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
