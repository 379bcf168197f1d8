import re
from dataclasses import replace

import pytest
import torch

from base_models import CheckpointError, create_model, load_checkpoint, load_weights
from base_models.checkpoints import recognize
from base_models.tcm import HyperFeatures, TCMConfig
from tests.tiny_models import tiny_sizes_of


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("tcm-small").eval()
    model.update_tables()
    return model


def in_latent_codec_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As CompressAI after 1.2.8 writes it; the projection of its attention is the second of two."""
    entropy = r"y\1."
    rules = (
        (r"^atten_(mean|scale)\.(\d+)\.0\.", r"latent_codec.y.channel_context.y\2.\1_support_transform."),
        (r"^cc_(mean|scale)_transforms\.(\d+)\.", r"latent_codec.y.channel_context.y\2.\1_cc."),
        (r"^lrp_transforms\.(\d+)\.", "latent_codec.y.latent_codec." + entropy + "lrp_transform."),
        (r"^h_(mean|scale)_s\.", r"latent_codec.h_s.h_\1_s."),
        (r"^h_a\.", "latent_codec.h_a."),
        (r"^entropy_bottleneck\.", "latent_codec.z.entropy_bottleneck."),
        (r"\.ln([12])\.", r".norm\1."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.2\.", ".mlp.fc2."),
        (r"\.msa\.embedding_layer\.", ".msa.attn.qkv."),
        (r"\.msa\.linear\.", ".msa.output_proj."),
    )
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        if key.startswith("gaussian_conditional."):
            renamed |= {f"latent_codec.y.latent_codec.y{k}.{key}": value for k in range(5)}
        elif key.endswith("relative_position_params"):
            table = value.permute(1, 2, 0).reshape(-1, len(value))
            renamed[key.replace("relative_position_params", "attn.relative_position_bias_table")] = table
            renamed[key.replace("relative_position_params", "attn.relative_position_index")] = torch.zeros(1)
        else:
            renamed[key] = value
            if ".msa.output_proj." in key:
                first = torch.randn_like(value) if value.dim() == 1 else torch.eye(len(value)).flip(0)
                renamed[key.replace("output_proj", "attn.proj")] = first
    return renamed


def test_latent_codec_layout_is_renamed(model):
    """Two projections in a row become one with the same output."""
    state = model.state_dict()
    theirs = in_latent_codec_layout(state)
    assert all(key.startswith(("g_a.", "g_s.", "latent_codec.")) for key in theirs)
    loaded = load_weights(create_model("tcm-small"), theirs).state_dict()
    for key, value in state.items():
        if ".msa.linear." not in key:
            assert torch.equal(loaded[key], value), key
    name = "g_a.1.trans_block.msa"
    x = torch.randn(3, state[f"{name}.linear.weight"].shape[1])
    first = x @ theirs[f"{name}.attn.proj.weight"].T + theirs[f"{name}.attn.proj.bias"]
    expected = first @ state[f"{name}.linear.weight"].T + state[f"{name}.linear.bias"]
    ours = x @ loaded[f"{name}.linear.weight"].T + loaded[f"{name}.linear.bias"]
    assert torch.allclose(ours, expected, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(64, 64), (64, 192)])
def test_maps_smaller_than_a_window_have_no_borders_in_them(model, size):
    """A latent of 4 rows is less than one window of 8."""
    output = model(torch.rand(2, 3, *size))
    assert output["x_hat"].shape == (2, 3, *size)
    assert output["x_hat"].isfinite().all() and output["likelihoods"]["y"].isfinite().all()


def test_compressais_layout_is_of_the_network_that_predicts_residuals_before_attention(tmp_path):
    """Whether its name is given or not; the published layout is of the published network."""
    state = create_model("tcm").state_dict()
    for layout, tells in ((lambda state: state, True), (in_latent_codec_layout, False)):
        torch.save({"state_dict": layout(state)}, tmp_path / "tcm.pth")
        for name in (None, "tcm"):
            loaded = load_checkpoint(tmp_path / "tcm.pth", name, lambdas=(0.025,))
            assert loaded.config == TCMConfig(residual_sees_attention=tells, lambdas=(0.025,))


SIZES = tiny_sizes_of("tcm") | {
    "blocks": (1, 2, 1), "head_dims": (2, 4, 8), "window": 4, "hyper_blocks": 2, "hyper_head_dim": 2, "hyper_window": 2,
}  # fmt: skip


@pytest.mark.parametrize(("name", "sizes"), [("tcm", SIZES), ("tcm", {"N": 96}), ("tcm-n128", {}), ("tcm-small", {})])
def test_sizes_are_recognized_by_shapes(name, sizes):
    """Windows and heads, too: their position tables tell them."""
    with torch.device("meta"):
        model = create_model(name, **sizes)
    recognized, told = recognize(model.state_dict())
    assert recognized == name and replace(TCMConfig(), **told) == model.config


def test_a_network_of_another_size_loads_in_both_layouts(tmp_path):
    torch.manual_seed(0)
    model = create_model("tcm", **SIZES)
    model.update_tables()
    for layout in (dict, in_latent_codec_layout):
        torch.save(layout(model.state_dict()), tmp_path / "tcm.pth")
        loaded = load_checkpoint(tmp_path / "tcm.pth")
        assert loaded.config == replace(model.config, residual_sees_attention=layout is dict)
        assert torch.equal(loaded.lrp_transforms[1][0].weight, model.lrp_transforms[1][0].weight)


def test_stages_that_do_not_mirror_each_other_are_named(tmp_path):
    """The published class can be made so."""
    state = create_model("tcm", **SIZES).state_dict()
    key = "g_s.1.trans_block.msa.relative_position_params"
    state[key] = state[key][:, :3, :3]
    torch.save(state, tmp_path / "tcm.pth")
    with pytest.raises(CheckpointError, match=rf"tcm.pth: {key} has shape \[1, 3, 3\], expected \[1, 7, 7\]"):
        load_checkpoint(tmp_path / "tcm.pth")


@torch.inference_mode()
def test_residuals_are_predicted_before_attention_on_demand(model):
    """As CompressAI's network does it."""
    other = create_model("tcm-small", residual_sees_attention=False).eval()
    other.load_state_dict(model.state_dict())
    known = HyperFeatures(*torch.randn(2, 1, model.config.M, 4, 4))
    mu, sigma, support = model.predict(0, known)
    other_mu, other_sigma, other_support = other.predict(0, known)
    assert torch.equal(mu, other_mu) and torch.equal(sigma, other_sigma)
    assert torch.equal(other_support, known.mean) and not torch.equal(support, other_support)
