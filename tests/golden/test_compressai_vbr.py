"""CompressAI's networks of variable rate against its own classes with the same random weights, at each rate."""

from __future__ import annotations

from types import SimpleNamespace

import compressai.models
import numpy as np
import pytest
import torch

from base_models import create_model
from base_models.checkpoints import recognize
from tto.codec import Codec

WIDTHS = {"N": 24, "M": 24}
TOLERANCE = 1e-5
BYTES_TOLERANCE = 0.01
QUALITIES = (3, 8)
TABLES = tuple(f"entropy_bottleneck.{name}" for name in ("_offset", "_quantized_cdf", "_cdf_length"))


@pytest.fixture(scope="module", params=["bmshj2018-hyperprior-vbr", "mbt2018-mean-vbr"])
def case(request, photograph) -> SimpleNamespace:
    """Ours and theirs, with latents of natural scales, offsets that matter and steps of z, and a picture x."""
    pixels = np.asarray(photograph(640, 512))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = create_model(request.param, **WIDTHS).eval().requires_grad_(False)
    ours.g_a[-1].weight *= 6 / ours.analysis(x, 8.0).std()
    z = ours.hyper_analysis(ours.analysis(x, 8.0), 8.0)
    ours.h_a[-1].weight *= 6 / z.std()
    [layer for layer in ours.h_s if isinstance(layer, torch.nn.Conv2d)][-1].bias[: ours.y_channels] += 4
    ours.QuantABCD[-1].bias.fill_(0.1)
    ours.QuantABCD[-1].weight *= 0.1
    ours.gayn2zqstep[-2].bias.fill_(1.0)
    ours.Gain[2] = 0.21  # not what the interpolation of λ gives
    ours.update_tables(fit_quantiles=True)
    theirs = getattr(compressai.models, type(ours).network_name)(*WIDTHS.values(), vr_entbttlnck=True)
    theirs.load_state_dict(in_their_names(ours.state_dict()), strict=False)
    return SimpleNamespace(ours=ours, theirs=theirs.eval().requires_grad_(False), x=x, pixels=pixels)


def in_their_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The entropy bottleneck of variable step has the older names; its tables are made later."""
    state = {key: value for key, value in state.items() if key not in TABLES}
    for old, new in (("_matrix", "matrices."), ("_bias", "biases."), ("_factor", "factors.")):
        state = {key.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}"): state[key] for key in state}
    return state


@pytest.mark.parametrize("quality", QUALITIES)
def test_forward_gives_the_same_numbers(case, quality):
    ours, theirs = case.ours, case.theirs
    found, expected = ours(case.x, float(quality)), theirs(case.x, s=quality - 1)
    torch.testing.assert_close(found["x_hat"], expected["x_hat"], rtol=TOLERANCE, atol=TOLERANCE)
    likelihoods = expected["likelihoods"]
    torch.testing.assert_close(found["likelihoods"]["y"], likelihoods["y"], rtol=TOLERANCE, atol=TOLERANCE)
    assert found["likelihoods"]["y"].min() < 0.1


@pytest.mark.parametrize("quality", QUALITIES)
def test_likelihoods_of_z_are_of_cells_of_its_step(case, quality):
    """Its `forward` has those of unit cells."""
    ours, theirs = case.ours, case.theirs
    y = ours.g_a(case.x)
    z = theirs.h_a(y if "mean" in ours.registered_name else y.abs())
    step = theirs.lower_bound_zqstep(theirs.gayn2zqstep(1 / theirs.Gain[quality - 1].view(1)))[0]
    prior = theirs.entropy_bottleneck
    values = z.transpose(0, 1).flatten(1)[:, None]
    rounded = prior.quantize_variable(values, "dequantize", prior._get_medians(), step)
    expected = prior._likelihood_variable(rounded, qs=step)[0].view(z.transpose(0, 1).shape).transpose(0, 1)
    found = ours(case.x, float(quality))["likelihoods"]["z"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=TOLERANCE)
    assert ours.z_step(float(quality)) == pytest.approx(float(step), abs=2e-6) and step != 1


@pytest.mark.parametrize("quality", QUALITIES)
def test_files_are_as_large_as_those_of_its_own_compress(case, quality):
    case.theirs.update(force=True, scale=case.theirs.Gain[quality - 1])
    strings = case.theirs.compress(case.x, s=quality - 1)["strings"]
    expected = sum(len(string[0]) for string in strings)
    result = Codec(case.ours, "cpu").compress(case.pixels, quality)
    assert result.bytes == pytest.approx(expected, rel=BYTES_TOLERANCE)


def test_its_state_dict_is_recognized(case):
    name, fields = recognize(case.theirs.state_dict())
    assert name == case.ours.registered_name
    assert fields == WIDTHS | {"lambdas": case.ours.config.lambdas, "z_steps": True}
    without = type(case.theirs)(*WIDTHS.values())
    assert recognize(without.state_dict())[1]["z_steps"] is False
