"""TCM against numbers of the published code, and its checkpoints in every layout."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from base_models import create_model, load_checkpoint, load_weights
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
    parts = model.split_y(y)
    walk = model.walk(z_hat, 1.0, lambda i, mu, sigma: (parts[i] - mu).round() + mu)
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


def test_published_streams_are_decoded_to_published_pixels(model, golden):
    strings = [[golden["y_stream"].tobytes()], [golden["z_stream"].tobytes()]]
    pixels = (decompress(model, strings, (4, 4))["x_hat"][0] * 255).round().numpy()
    assert np.abs(pixels - golden["decoded"].astype(float)).max() <= 1


def test_streams_written_are_those_of_the_published_code(model, golden, image):
    (y_string,), (z_string,) = compress(model, image)["strings"]
    assert z_string == golden["z_stream"].tobytes()
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
