from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import mse_loss

from tto.errors import BadArgument
from tto.image import load_picture
from tto.metrics import ms_ssim
from tto.refine.distortion import SquaredError, load_weights, make_distortion


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def pair(photograph):
    original = np.asarray(photograph(180, 170))
    noise = np.random.default_rng(1).integers(-9, 10, original.shape)
    return original, np.clip(original + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("metric", ["mse", "ms-ssim"])
def test_tensors_and_pixels_agree(pair, metric):
    original, decoded = pair
    distortion = make_distortion(original, metric)
    assert float(distortion(tensor(decoded))) == pytest.approx(distortion.of_pixels(decoded), rel=1e-4)


def test_values_are_those_of_the_metrics(pair):
    original, decoded = pair
    mse = np.mean((original.astype(float) - decoded) ** 2)
    assert make_distortion(original, "mse").of_pixels(decoded) == pytest.approx(mse)
    assert make_distortion(original, "ms-ssim").of_pixels(decoded) == pytest.approx(1 - ms_ssim(original, decoded))


@pytest.mark.parametrize("pixels_at_once", [1 << 18, 9000])
def test_squared_error_and_its_gradient_are_those_of_the_whole_float_picture(pair, monkeypatch, pixels_at_once):
    monkeypatch.setattr("tto.side.filter.BAND", pixels_at_once)
    original, decoded = pair
    x_hat, plain = (tensor(decoded).requires_grad_(True) for _ in range(2))
    found, expected = SquaredError(original)(x_hat), 255**2 * mse_loss(plain, tensor(original))
    (3 * found).backward()
    (3 * expected).backward()
    assert torch.allclose(found, expected, rtol=1e-6) and torch.equal(x_hat.grad, plain.grad)


def test_weights_move_distortion_to_where_they_are():
    original, decoded = np.zeros((2, 4, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)
    decoded[0, 0] = 10
    weights = np.zeros((2, 4))
    weights[0, :2] = 4
    weighted = SquaredError(original, weights)
    assert weighted.of_pixels(decoded) == pytest.approx(4 * 100 / 8)
    assert float(weighted(tensor(decoded))) == pytest.approx(4 * 100 / 8)


@pytest.mark.parametrize("metric", ["mse", "ms-ssim"])
def test_the_original_is_converted_once(pair, metric):
    original, decoded = pair
    distortion = make_distortion(original.copy(), metric)
    before = float(distortion(tensor(decoded)))
    distortion.original[:] = 0
    assert float(distortion(tensor(decoded))) == before


def test_a_region_is_weights_of_mean_one(photograph):
    picture = load_picture(photograph(6, 4))
    region = np.zeros((4, 6), np.uint8)
    region[:, :2] = 200
    weights = load_weights(Image.fromarray(region), picture)
    assert weights.mean() == pytest.approx(1)
    assert weights[0].tolist() == pytest.approx([3, 3, 0, 0, 0, 0])


@pytest.mark.parametrize(("size", "level"), [((5, 4), 255), ((6, 4), 0)])
def test_regions_of_another_size_or_without_weight_are_refused(photograph, size, level):
    with pytest.raises(BadArgument):
        load_weights(Image.new("L", size, level), load_picture(photograph(6, 4)))


def test_unknown_metrics_and_pictures_too_small_for_ms_ssim_are_refused(photograph):
    small = np.asarray(photograph(160, 300))
    with pytest.raises(BadArgument, match="unknown metric"):
        make_distortion(small, "vmaf")
    with pytest.raises(BadArgument, match=r"at least 161 .* --metric mse \(metric='mse'\)"):
        make_distortion(small, "ms-ssim")


def blurred_error(original: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Somebody's own metric."""
    return torch.nn.functional.avg_pool2d(original - decoded, 2).square().mean()


def test_any_function_of_two_pictures_is_a_distortion(pair):
    original, decoded = pair
    distortion = make_distortion(original, blurred_error, lambda_scale=3.0)
    expected = float(blurred_error(tensor(original), tensor(decoded)))
    assert distortion.of_pixels(decoded) == pytest.approx(expected, rel=1e-6)
    assert float(distortion(tensor(decoded))) == pytest.approx(expected, rel=1e-6)
    x_hat = tensor(decoded).requires_grad_()
    distortion(x_hat).backward()
    assert x_hat.grad.abs().sum() > 0
    assert distortion.curvature(x_hat) == pytest.approx(SquaredError(original).curvature(x_hat) / 3)


def test_a_metric_without_a_usual_weight_wants_one(pair):
    for metric, name in ((blurred_error, "blurred_error"), ("lpips", "lpips")):
        with pytest.raises(BadArgument, match=f"the metric {name} has no usual weight"):
            make_distortion(pair[0], metric)
    with pytest.raises(BadArgument, match=r"needs --metric mse \(metric='mse'\)"):
        make_distortion(pair[0], blurred_error, np.ones(pair[0].shape[:2]), 1.0)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (lambda original, decoded: (original - decoded).square(), "does not give a tensor of one value"),
        (lambda original, decoded: (original - decoded).square().mean().item(), "does not give a tensor of one value"),
        (lambda original, decoded: (original - decoded).detach().square().mean(), "has no gradient"),
    ],
)
def test_what_is_no_differentiable_distance_is_named_in_one_line(pair, metric, reason):
    original, decoded = pair
    distortion = make_distortion(original, metric, lambda_scale=3.0)
    with pytest.raises(BadArgument, match=f"the metric <lambda> {reason}"):
        distortion(tensor(decoded).requires_grad_())


def test_refinement_lowers_the_metric_it_is_given(tiny_codec, photograph):
    """Of an untrained network, at a weight at which bits hardly count."""
    weight = 50 * 255**2 * float(tiny_codec.model.lambda_at(4.0))
    result = tiny_codec.compress(photograph(70, 50), 4.0, steps=6, metric=blurred_error, lambda_=weight)
    base = tiny_codec.compress(photograph(70, 50), 4.0, lambda_=weight)
    original = tensor(np.asarray(photograph(70, 50)))
    errors = [float(blurred_error(original, tensor(np.asarray(one.image)))) for one in (result, base)]
    assert errors[0] < 0.9 * errors[1]
    assert pytest.approx(result.bpp + weight * errors[0], rel=1e-4) == result.J


def test_a_distance_whose_gradient_is_no_number_ends_the_descent(tiny_codec, photograph):
    """As a root has where it is zero."""

    def rooted(original: torch.Tensor, x_hat: torch.Tensor) -> torch.Tensor:
        return (original - x_hat).square().mean() + 0 * (original - original * (1 + 0 * x_hat)).abs().sum().sqrt()

    result = tiny_codec.compress(photograph(70, 50), 4.0, effort="fast", metric=rooted, lambda_=100.0)
    assert result.J <= result.base_J < float("inf")
