"""FTIC against numbers of the published code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from base_models import create_model, load_weights

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from fill import fill  # noqa: E402

RELATIVE_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE / "ftic_seed0_256x256.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def published_state():
    """Weights as the published code would save them, filled from their names."""
    network = create_model("ftic")
    network.z_prior.update_tables()
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("gaussian_conditional.")}
    arrays = {key: None if "index" in key else fill(key, tuple(value.shape)) for key, value in state.items()}
    return {key: state[key] if array is None else torch.from_numpy(array) for key, array in arrays.items()}


@pytest.fixture(scope="module")
def model(published_state):
    return load_weights(create_model("ftic"), published_state)


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.abs(ours[0].numpy() - theirs).max() / np.abs(theirs).max())


def test_names_and_shapes_are_those_of_published_checkpoints(published_state):
    published = json.loads((HERE / "ftic_keys.json").read_text())
    tables = ("_quantized_cdf", "_offset", "_cdf_length")  # empty there
    assert {key: list(value.shape) for key, value in published_state.items() if not key.endswith(tables)} == {
        key: shape for key, shape in published.items() if not key.endswith(tables)
    }


@torch.inference_mode()
def test_latents_means_scales_and_reconstruction_agree(model, golden):
    image = torch.from_numpy(golden["image"]).permute(2, 0, 1)[None].float() / 255
    y = model.analysis(image)
    assert relative_error(y, golden["y"]) <= RELATIVE_TOLERANCE
    z, medians = model.hyper_analysis(y), model.z_medians()
    bits = -model.z_prior.likelihood(z).double().log2().sum().item()
    assert bits == pytest.approx(float(golden["z_bits"]), rel=1e-4)
    parts = model.split_y(torch.from_numpy(golden["y"]).round()[None])  # as published, where close to the middle
    walk = model.walk((z - medians).round() + medians, 1.0, lambda i, mu, sigma: parts[i])
    assert relative_error(walk.mu, golden["means"]) <= RELATIVE_TOLERANCE
    assert relative_error(walk.sigma, golden["scales"]) <= RELATIVE_TOLERANCE
    assert relative_error(model.synthesis(walk.y_hat), golden["x_hat"]) <= RELATIVE_TOLERANCE
    assert relative_error(model.synthesis(model.join_y(parts)), golden["g_s_of_rounded_y"]) <= RELATIVE_TOLERANCE
