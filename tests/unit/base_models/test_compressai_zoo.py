"""What CompressAI's families have of their own."""

from __future__ import annotations

import pytest
import torch

from base_models import create_model, fingerprint, load_checkpoint, load_weights
from base_models.compressai_zoo import FAMILIES
from tests.checkpoint_layouts import before_1_2_5, of_2020

SIZES = {"N": 8, "M": 8}


@pytest.mark.parametrize("name", [family.registered_name for family in FAMILIES])
def test_weights_under_the_names_of_earlier_releases_are_the_same(name, tmp_path):
    """Those of 2020 are what the published files have, all of them."""
    torch.manual_seed(0)
    model = create_model(name, **SIZES)
    model.update_tables()
    expected, present = fingerprint(model), model.state_dict()
    for layout, renamed in ((of_2020, "_matrices.0"), (before_1_2_5, "_matrix0"), (dict, "matrices.0")):
        state = layout(present)
        assert f"entropy_bottleneck.{renamed}" in state
        torch.save(state, tmp_path / "a.pth.tar")
        loaded = load_checkpoint(tmp_path / "a.pth.tar")
        assert loaded.registered_name == name and fingerprint(loaded) == expected
    assert name not in ("cheng2020-anchor", "cheng2020-attn") or "g_a.0.downsample.weight" in of_2020(present)


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean"])
def test_estimated_bits_rise_with_quality(name):
    torch.manual_seed(0)
    model = create_model(name, **SIZES).eval()
    with torch.no_grad():
        model.g_a[-1].weight *= 200
    x = torch.rand(1, 3, 64, 64)
    bits = [-model(x, quality)["likelihoods"]["y"].log2().sum() for quality in (1.0, 4.0, 8.0)]
    assert bits[0] < bits[1] < bits[2]


@pytest.mark.parametrize("name", ["mbt2018", "cheng2020-anchor"])
def test_using_a_network_leaves_its_fingerprint_and_masked_taps_get_no_gradient(name):
    torch.manual_seed(0)
    model = create_model(name, **SIZES)
    before = fingerprint(model)
    model(torch.rand(1, 3, 64, 64))["x_hat"].sum().backward()
    assert fingerprint(model) == before
    convolution = model.context_prediction
    gradient = torch.autograd.grad(convolution(torch.rand(1, 8, 6, 6)).sum(), convolution.weight)[0]
    assert not gradient[:, :, 2, 2:].any() and not gradient[:, :, 3:].any()
    assert gradient[:, :, :2].all()


def test_weights_saved_before_their_mask_was_applied_are_those_after():
    torch.manual_seed(0)
    model = create_model("mbt2018", **SIZES)
    raw = model.state_dict()
    raw["context_prediction.weight"] = raw["context_prediction.weight"] + 1.0  # also where it is masked
    masked = raw | {"context_prediction.weight": raw["context_prediction.weight"] * raw["context_prediction.mask"]}
    first, second = (load_weights(create_model("mbt2018", **SIZES), state) for state in (raw, masked))
    assert fingerprint(first) == fingerprint(second)


def test_networks_with_the_same_weights_and_other_gains_have_other_fingerprints():
    """Else a file of the one would be decoded by the other, with another gain."""
    torch.manual_seed(0)
    alone = create_model("mbt2018-mean", **SIZES, lambdas=(0.0067,))
    state = alone.state_dict()
    third, fourth = (
        load_weights(create_model("mbt2018-mean", **SIZES, trained_quality=quality), state) for quality in (3, 4)
    )
    assert len({fingerprint(alone), fingerprint(third), fingerprint(fourth)}) == 3
