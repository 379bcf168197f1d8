"""What ELIC has of its own."""

from __future__ import annotations

import pytest
import torch
from compressai.models import sensetime

from base_models import CheckpointError, create_model, fingerprint, load_checkpoint, load_weights
from base_models.checkpoints import recognize
from tests.checkpoint_layouts import before_1_2_5, of_2020

SIZES = {"N": 12, "M": 34, "groups": (4, 6, 8, 16), "context_widths": (224, 128)}


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """CompressAI's network, in no size that is registered."""
    torch.manual_seed(0)
    network = sensetime.Elic2022Official(N=12, M=34, groups=SIZES["groups"])
    network.update()
    return network.eval()


def test_the_first_group_may_be_wider_than_what_the_hyperprior_says():
    model = create_model("elic", N=8, M=32, groups=(16, 16), context_widths=(8, 8)).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64))["likelihoods"]["y"].shape == (1, 32, 4, 4)


@torch.inference_mode()
def test_a_network_of_another_size_is_recognized_by_its_shapes(theirs, tmp_path):
    assert recognize(theirs.state_dict()) == ("elic", SIZES)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    loaded, x = load_checkpoint(tmp_path / "a.pth"), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded(x)["x_hat"], theirs(x)["x_hat"])


@pytest.mark.parametrize("name", ["elic-small", "elic-small-both"])
def test_a_registered_size_keeps_its_name(name):
    with torch.device("meta"):
        state = create_model(name).state_dict()
    assert recognize(state)[0] == name


def test_another_elic_is_not_taken_for_it():
    """Its contexts are of other groups, and its hyperprior says as much of y as y has channels."""
    other = sensetime.Elic2022Chandelier(N=12, M=34, groups=SIZES["groups"])
    with pytest.raises(CheckpointError, match="of no network that is known"):
        recognize(other.state_dict())


def test_one_layer_of_another_shape_is_named(theirs, tmp_path):
    state = theirs.state_dict()
    state["g_s.1.weight"] = state["g_s.1.weight"][:, :6]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"g_s.1.weight has shape \[34, 6, 5, 5\], expected \[34, 12, 5, 5\]"):
        load_checkpoint(tmp_path / "a.pth")


def test_bottlenecks_inside_other_modules_have_had_other_names(theirs):
    present = load_weights(create_model("elic", **SIZES), theirs.state_dict())
    for layout, name in ((before_1_2_5, "_matrix0"), (of_2020, "_matrices.0")):
        state = layout(theirs.state_dict())
        assert f"latent_codec.hyper.entropy_bottleneck.{name}" in state
        assert fingerprint(load_weights(create_model("elic", **SIZES), state)) == fingerprint(present)


def test_weights_saved_before_their_masks_were_applied_are_those_after():
    torch.manual_seed(1)
    network = sensetime.Elic2022Official(N=12, M=34, groups=SIZES["groups"]).eval()
    network.update()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        network(torch.rand(1, 3, 64, 64))
    key = "latent_codec.y.latent_codec.y0.context_prediction.weight"
    assert not torch.equal(before[key], network.state_dict()[key])
    first, second = (load_weights(create_model("elic", **SIZES), state) for state in (before, network.state_dict()))
    assert fingerprint(first) == fingerprint(second)
