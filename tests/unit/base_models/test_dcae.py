"""The network scaled down: gains, sizes, one walk."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from base_models import create_model, fingerprint, list_models, load_checkpoint, load_weights, save_checkpoint
from base_models.blocks import SwinGroup
from base_models.dcae import DCAEConfig
from tto.codec import Codec


def test_registry_knows_both_sizes_and_refuses_others():
    assert {"dcae", "dcae-small"} <= set(list_models())
    with pytest.raises(KeyError, match="dcae-small"):
        create_model("dcae-tiny")
    with pytest.raises(TypeError):
        create_model("dcae-small", colour=1)


def test_one_quality_has_no_gain_parameters():
    assert not [name for name in create_model("dcae-small", lambdas=(0.01,)).state_dict() if "gain" in name]


@torch.inference_mode()
def test_gains_interpolate_geometrically(small_model):
    def gain(quality):
        return small_model.gain_y(torch.tensor([quality], dtype=torch.float64))

    torch.testing.assert_close(gain(3.5), (gain(3.0) * gain(4.0)).sqrt())
    torch.testing.assert_close(gain(8.0), small_model.gain_y.log_gain[-1].exp().view(1, -1, 1, 1))
    lambdas = small_model.config.lambdas
    assert float(small_model.lambda_at(2.5)) == pytest.approx((lambdas[1] * lambdas[2]) ** 0.5)


@torch.inference_mode()
def test_qualities_of_a_batch_are_independent(small_model):
    x = torch.rand(2, 3, 64, 128)
    both = small_model(x, torch.tensor([1.5, 7.0]))
    for i, quality in enumerate((1.5, 7.0)):
        alone = small_model(x[i : i + 1], quality)
        torch.testing.assert_close(both["x_hat"][i : i + 1], alone["x_hat"], rtol=1e-3, atol=1e-4)


@torch.inference_mode()
def test_walk_visits_slices_in_order_and_uses_earlier_ones(small_model):
    z_hat = torch.zeros(1, 48, 1, 1)
    seen = []

    def code(i, mu, sigma):
        seen.append((i, mu))
        return mu + (1.0 if i == 0 else 0.0)

    small_model.walk(z_hat, 4.0, code)
    with_change = [mu for _, mu in seen]
    seen.clear()
    small_model.walk(z_hat, 4.0, lambda i, mu, sigma: (seen.append((i, mu)), mu)[1])
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(with_change[0], seen[0][1])
    assert not torch.equal(with_change[1], seen[1][1])


class Largest(TorchDispatchMode):
    """Hears how many numbers the largest tensor has that an operation gives."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
        return result


@torch.inference_mode()
def test_over_tiles_nothing_larger_is_made_than_what_the_first_slice_is_predicted_from(tiny_sizes):
    """And what is made is that of the whole, in float64 as files are coded."""
    torch.manual_seed(0)
    model = create_model("dcae-small", **tiny_sizes).eval()
    z_hat, first = torch.randn(1, model.config.N, 16, 12).round().double(), 2 * model.config.M * 64 * 48
    numbers, y_hats, walker = [], [], model.entropy_walker()
    for memory in (None, 7e5):
        with Largest() as largest:
            y_hats.append(walker.code(z_hat, 4.0, lambda i, mu, sigma: mu, memory=memory))
        numbers.append(largest.numbers)
    assert numbers[0] > numbers[1] == first
    torch.testing.assert_close(y_hats[1], y_hats[0], rtol=1e-10, atol=1e-10)


@torch.inference_mode()
def test_walker_in_float64_agrees_and_has_no_transforms(small_model):
    walker = small_model.entropy_walker()
    z_hat = torch.randn(1, 48, 2, 1).round()
    narrow = small_model.walk(z_hat, 4.0, lambda i, mu, sigma: mu)
    wide = walker.walk(z_hat.double(), 4.0, lambda i, mu, sigma: mu)
    torch.testing.assert_close(wide.sigma.float(), narrow.sigma, rtol=1e-3, atol=1e-4)
    names = [name for name, _ in walker.named_parameters()]
    assert not [name for name in names if name.startswith(("g_a", "g_s", "h_a"))]
    assert small_model.g_s[0].weight.dtype == torch.float32


def test_sizes_that_are_no_multiple_of_64_are_refused(small_model):
    with pytest.raises(ValueError, match="multiples of 64"):
        small_model(torch.rand(1, 3, 65, 64))


@torch.inference_mode()
@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8), (13, 20)])
def test_windows_of_every_size_work_and_padding_is_not_attended_to(size, monkeypatch):
    torch.manual_seed(0)
    group = SwinGroup(16, 8, 8, layers=2).eval()
    x = torch.randn(2, 16, *size)
    out = group(x)
    assert out.shape == x.shape
    assert out.isfinite().all()
    torch.testing.assert_close(out[1:], group(x[1:]))
    pad = torch.nn.functional.pad
    monkeypatch.setattr("base_models.blocks.F.pad", lambda x, sides: pad(x, sides, value=7.0))
    torch.testing.assert_close(group(x), out)


@pytest.mark.parametrize("overrides", [{"dict_entries": 0}, {"msfa_scales": 0}, {"msfa_scales": 1, "dict_entries": 16}])
def test_ablated_networks_have_likelihoods_and_gradients(overrides):
    """Variants of Lu 2025, §4.2."""
    model = create_model("dcae-small", **overrides)
    output = model(torch.rand(1, 3, 64, 64), 3.0)
    (-output["likelihoods"]["y"].log().sum()).backward()
    assert model.cc_mean_transforms[0][0].weight.grad.abs().sum() > 0
    assert output["x_hat"].shape == (1, 3, 64, 64)


def test_the_only_slice_is_explained_by_the_hyperprior_alone():
    model = create_model("dcae-small", num_slices=1).eval()
    with torch.inference_mode():
        maps = model.explanations(torch.zeros(1, 48, 1, 1), 1.0, torch.zeros(1, 160, 4, 4))
    assert maps["dictionary"].shape[-2:] == (4, 4)


def shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in network.named_parameters()}


def test_larger_analysis_leaves_the_synthesis_and_starts_as_the_same_transform(tiny_sizes, photograph, tmp_path):
    """It trains, works over tiles, is saved, and codes a picture."""
    pixels = np.stack([np.asarray(photograph(128, 64, seed)) for seed in range(3)])
    x, quality = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, 4.0
    plain = create_model("dcae-small", **tiny_sizes)
    model = create_model("dcae-small", **tiny_sizes, analysis_channels=(16, 24, 32), analysis_layers=(1, 0, 2))
    plain.init_from_images(x)
    model.init_from_images(x)
    assert shapes(model.g_s) == shapes(plain.g_s)
    assert [model.g_a[i].conv.out_channels for i in (0, 2, 4)] == [16, 24, 32]
    assert [len(model.g_a[i].layers) for i in (1, 3, 5)] == [1, 0, 2]
    y = plain.analysis(x, quality)
    for found, expected in (
        (model.analysis(x, quality), y),
        (model.synthesis(y, quality), plain.synthesis(y, quality)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    output = model.train()(x, quality)
    (output["x_hat"].square().sum() - output["likelihoods"]["y"].log().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.g_a.parameters())
    model.requires_grad_(False).update_tables()
    torch.testing.assert_close(model.analysis(x, quality, 3e5), model.analysis(x, quality), rtol=1e-3, atol=1e-3)
    save_checkpoint(model, tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path / "model.safetensors")
    assert loaded.config == model.config and fingerprint(loaded) == fingerprint(model)
    codec = Codec(loaded, "cpu")
    result = codec.compress(pixels[0], quality, effort="none")
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"analysis_channels": (32, 48)}, "analysis_channels is .* as in"),
        ({"analysis_channels": (32, 48, 5000)}, "analysis_channels is .* 1 to 4096"),
        ({"analysis_channels": (32, 48, 81)}, "analysis_channels is 81, expected a multiple of 16"),
        ({"analysis_layers": (0, 0, 65)}, "analysis_layers is .* 0 to 64"),
        ({"analysis_layers": 2}, "analysis_layers is 2, expected whole numbers as in"),
    ],
)
def test_analysis_that_no_network_has_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        create_model("dcae-small", **sizes)


def test_default_configuration_is_the_published_one():
    with torch.device("meta"):
        assert DCAEConfig() == create_model("dcae").config


def test_latent_codec_layout_is_renamed():
    """CompressAI after 1.2.8: features of μ come before those of σ, so that input channels change places."""
    model = create_model("dcae-small", lambdas=(0.013,)).eval()
    model.update_tables()
    state = model.state_dict()
    rules = (
        (r"^dt$", "shared_dictionary.dt"),
        (r"^dt_cross_attention\.(\d+)\.", r"latent_codec.y.channel_context.y\1.cross_attention."),
        (r"^cc_(mean|scale)_transforms\.(\d+)\.", r"latent_codec.y.channel_context.y\2.\1_cc."),
        (r"^lrp_transforms\.(\d+)\.", r"latent_codec.y.latent_codec.y\1.lrp_transform."),
        (r"^h_z_s1\.", "latent_codec.h_s.h_scale_s."),
        (r"^h_z_s2\.", "latent_codec.h_s.h_mean_s."),
        (r"^(h_a|gaussian_conditional|entropy_bottleneck)\.", r"latent_codec.\1."),
        (r"^latent_codec\.entropy_bottleneck\.", "latent_codec.z.entropy_bottleneck."),
        (r"^latent_codec\.gaussian_conditional\.", "latent_codec.y.latent_codec.y0.gaussian_conditional."),
    )
    channels, theirs = model.config.M, {}
    for key, value in state.items():
        if re.search(r"^(cc|lrp).*\.\d+\.0\.weight|x_trans\.weight", key):
            value = torch.cat([value[:, channels : 2 * channels], value[:, :channels], value[:, 2 * channels :]], 1)
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        theirs[key] = value
    assert all(key.startswith(("g_a.", "g_s.", "latent_codec.", "shared_dictionary.")) for key in theirs)
    loaded = load_weights(create_model("dcae-small", lambdas=(0.013,)), theirs).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
