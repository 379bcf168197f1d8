"""ELIC against CompressAI's `Elic2022Official` with the same weights, which load in both of its key layouts."""

from __future__ import annotations

import pytest
import torch

from base_models import create_model, load_weights

TOLERANCE = 1e-5
SIZES = {"N": 24, "M": 48, "groups": (4, 4, 8, 8, 24)}


@pytest.fixture(scope="module")
def theirs():
    sensetime = pytest.importorskip("compressai.models.sensetime")
    torch.manual_seed(0)
    network = sensetime.Elic2022Official(**SIZES)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data *= 1.5  # so that y is not rounded to its mean everywhere
    network.update()
    return network.eval()


@pytest.fixture(scope="module")
def model(theirs):
    return load_weights(create_model("elic", **SIZES), theirs.state_dict())


def test_default_sizes_are_those_of_compressai():
    sensetime = pytest.importorskip("compressai.models.sensetime")
    theirs = sensetime.Elic2022Official()
    ours = create_model("elic")
    renamed = ours.rename_keys(theirs.state_dict())
    own = {key: value.shape for key, value in ours.named_parameters()}
    assert own == {key: renamed[key].shape for key in own}
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters()) == 32_074_200


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 64), (128, 192)])
def test_reconstruction_and_bits_agree(theirs, model, size):
    x = torch.rand(2, 3, *size)
    expected, output = theirs(x), model(x)
    assert (output["x_hat"] - expected["x_hat"]).abs().max() <= TOLERANCE * expected["x_hat"].abs().max()
    for name in ("y", "z"):
        ours, bits = (-o["likelihoods"][name].double().log2().sum().item() for o in (output, expected))
        assert ours == pytest.approx(bits, rel=TOLERANCE)
    assert expected["likelihoods"]["y"].min() < 0.5


@torch.inference_mode()
def test_parts_are_the_passes_that_compressai_codes(theirs, model):
    y = torch.randn(2, 48, 4, 6)
    parts = model.split_y(y)
    anchors, others = theirs.latent_codec["y"].latent_codec["y2"].unembed(y[:, 8:16])
    assert torch.equal(parts[4], anchors) and torch.equal(parts[5], others)
    assert torch.equal(model.join_y(parts), y)
    assert [model.slice_of(part) for part in range(len(parts))] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@torch.inference_mode()
def test_double_walk_is_that_of_the_network_without_convolutions(model):
    """PyTorch's are several times slower than matrix products in float64."""
    walker = model.entropy_walker()
    assert not any(isinstance(module, torch.nn.Conv2d) for module in walker.modules())
    z_hat = torch.randn(1, 24, 1, 2).round()
    double, single = (network.walk(z_hat.to(dtype), 1.0, lambda i, mu, sigma: mu + 1.0)
                      for network, dtype in ((walker, torch.float64), (model, torch.float32)))  # fmt: skip
    torch.testing.assert_close(double.mu.float(), single.mu, rtol=1e-4, atol=1e-4)


def test_layout_after_release_1_2_8_is_renamed(theirs):
    older = load_weights(create_model("elic", **SIZES), theirs.state_dict()).state_dict()
    newer = {
        key.replace("latent_codec.hyper.h_", "latent_codec.h_").replace("latent_codec.hyper.", "latent_codec.z."): value
        for key, value in theirs.state_dict().items()
    }
    assert "latent_codec.z.entropy_bottleneck.quantiles" in newer
    loaded = load_weights(create_model("elic", **SIZES), newer).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in older.items())
