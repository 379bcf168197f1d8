from __future__ import annotations

import math

import pytest
import torch

from base_models import create_model
from base_models.base import interpolate_geometric
from tto.refine.distortion import make_distortion
from tto.train.objective import RateDistortion, bits
from tto.train.recipe import LossSettings


def test_bits_of_a_half_is_one_per_symbol():
    assert bits(torch.full((2, 3, 4), 0.5)).tolist() == [12.0, 12.0]


def test_lambdas_between_qualities_are_geometric_means():
    values = interpolate_geometric((0.01, 0.04, 0.04), torch.tensor([1.0, 1.5, 2.0, 2.5, 9.0], dtype=torch.float64))
    torch.testing.assert_close(values, torch.tensor([0.01, 0.02, 0.04, 0.04, 0.04], dtype=torch.float64))


@pytest.fixture(scope="module")
def model(tiny_sizes):
    return create_model("dcae-small", **tiny_sizes, lambdas=(0.01, 0.04))


def fake_output(images: torch.Tensor, error: float) -> dict:
    likelihoods = {"y": torch.full((2, 4, 4, 4), 0.25), "z": torch.full((2, 2, 1, 1), 0.5)}
    return {"x_hat": images + error, "likelihoods": likelihoods}


def test_loss_is_rate_plus_weighted_mse_weighted_by_quality(model):
    images = torch.rand(2, 3, 64, 64)
    objective = RateDistortion(LossSettings(), model)
    quality = objective.quality(torch.tensor([0.0, 1.0], dtype=torch.float64))
    terms = objective(fake_output(images, 0.1), images, quality)
    assert quality.tolist() == [1.0, 2.0]
    assert terms.bpp_y.tolist() == [128 / 4096] * 2
    assert terms.bpp_z.tolist() == [2 / 4096] * 2
    assert terms.mse.tolist() == pytest.approx([0.01, 0.01], rel=1e-4)
    # mean of λ^-½ over q: the integral of 10·2^-(q-1) over one unit
    mean_weight = 10 / math.log(2) * (1 - 0.5)
    expected = [(130 / 4096 + w * 255**2 * 0.01) * w**-0.5 / mean_weight for w in (0.01, 0.04)]
    assert terms.loss.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_stage_weighs_qualities_by_a_power_of_lambda(model, power):
    images, quality = torch.rand(2, 3, 64, 64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    terms = RateDistortion(LossSettings(quality_power=power), model)(fake_output(images, 0.1), images, quality)
    mean_weight = {0.0: 1.0, 1.0: 100 / math.log(4) * (1 - 1 / 4)}[power]  # 100·4^-(q-1) over one unit
    expected = [(130 / 4096 + w * 255**2 * 0.01) * w**-power / mean_weight for w in (0.01, 0.04)]
    assert terms.loss.tolist() == pytest.approx(expected, rel=1e-3)
    torch.testing.assert_close(terms.rate + terms.distortion, terms.loss)


def test_parts_of_the_loss_are_told_where_they_are_balanced(model):
    images, quality = torch.rand(2, 3, 64, 64), torch.tensor([1.0, 2.0])
    values, plain = (
        RateDistortion(LossSettings(balance=balance), model).values(fake_output(images, 0.1), images, quality)
        for balance in (True, False)
    )
    assert values.keys() - plain.keys() == {"rate", "distortion"}


def test_a_stage_weighs_the_bits_by_each_prediction(model):
    images, quality = torch.rand(2, 3, 64, 64), torch.tensor([1.0, 1.0])
    output = fake_output(images, 0.0)
    weighing, plain = (RateDistortion(LossSettings(rate_weights=w), model) for w in ((0.25, 0.75), None))
    scale = plain(output, images, quality).loss / (130 / 4096)
    assert torch.equal(weighing(output, images, quality).loss, 130 / 4096 * scale)  # as in evaluation
    output["likelihoods"]["y1"] = torch.full((2, 4, 4, 4), 0.5)
    terms = weighing(output, images, quality)
    assert terms.bpp_y.tolist() == [128 / 4096] * 2
    assert (terms.loss / scale).tolist() == pytest.approx([(0.25 * 64 + 0.75 * 128 + 2) / 4096] * 2)
    assert torch.equal(plain(output, images, quality).loss, 130 / 4096 * scale)


def test_ms_ssim_of_equal_images_costs_nothing(model):
    images = torch.rand(2, 3, 192, 192)
    objective = RateDistortion(LossSettings(distortion="ms-ssim"), model)
    quality = torch.tensor([1.0, 1.0])
    assert objective.distortion(images, images, quality).abs().max() < 1e-4
    terms, worse = (objective(fake_output(images, error), images, quality) for error in (0.0, 0.3))
    assert (worse.loss > terms.loss).all()


def test_ms_ssim_has_the_lambda_with_which_the_codec_refines_for_it(model):
    images, quality = torch.rand(1, 3, 192, 192), torch.tensor([1.0])
    x_hat = (images + 0.2 * torch.rand_like(images)).clamp(0, 1)
    objective = RateDistortion(LossSettings(distortion="ms-ssim"), model)
    asked = make_distortion((255 * images[0]).round().byte().permute(1, 2, 0).numpy(), "ms-ssim", None)
    refined = float(model.lambda_at(1.0)) * asked.lambda_scale * asked(x_hat)
    assert objective.distortion(x_hat, images, quality).item() == pytest.approx(float(refined), rel=0.01)


def test_gradient_reaches_every_trained_parameter(model):
    model.train()
    images = torch.rand(1, 3, 64, 64)
    quality = torch.tensor([1.3], dtype=torch.float64)
    RateDistortion(LossSettings(), model)(model(images, quality), images, quality).loss.sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None and not n.endswith("quantiles")]
    assert without == []
