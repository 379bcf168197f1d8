from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tto.metrics import load_lpips, ms_ssim, ms_ssim_db, psnr


def flat(value: int, height: int = 4, width: int = 5) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def textured(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_psnr_of_a_uniform_error_of_five_levels():
    assert psnr(flat(100), flat(105)) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(flat(105), flat(100)) == pytest.approx(20 * math.log10(255 / 5))  # no wrap-around


def test_psnr_of_one_wrong_value_averages_over_channels():
    decoded = flat(0)
    decoded[0, 0, 1] = 255
    assert psnr(flat(0), decoded) == pytest.approx(10 * math.log10(4 * 5 * 3))


def test_identical_images_have_infinite_psnr_and_ms_ssim_one():
    image = textured(161, 170)
    assert psnr(image, image) == math.inf
    assert ms_ssim(image, image) == pytest.approx(1, abs=1e-6)


def test_ms_ssim_falls_with_noise():
    image = np.kron(textured(25, 25), np.ones((8, 8, 1), np.uint8))
    noise = np.random.default_rng(1).normal(0, 1, image.shape)
    noisy = [np.clip(image + sigma * noise, 0, 255).astype(np.uint8) for sigma in (5, 20)]
    assert 1 > ms_ssim(image, noisy[0]) > ms_ssim(image, noisy[1]) > 0


@pytest.mark.parametrize("size", [(160, 400), (400, 160), (1, 1)])
def test_ms_ssim_of_an_image_without_five_scales_is_nan(size):
    assert math.isnan(ms_ssim(flat(1, *size), flat(2, *size)))


def test_ms_ssim_on_the_logarithmic_scale():
    assert ms_ssim_db(0.99) == pytest.approx(20)
    assert ms_ssim_db(1.0) == math.inf
    assert math.isnan(ms_ssim_db(math.nan))


@pytest.mark.parametrize("metric", [psnr, ms_ssim])
@pytest.mark.parametrize("decoded", [flat(0, 4, 6), flat(0)[..., :1], flat(0)[..., 0], flat(0).astype(np.float32)])
def test_anything_but_two_pictures_of_one_size_is_refused(metric, decoded):
    with pytest.raises(ValueError):
        metric(flat(0), decoded)


def test_lpips_gets_pixels_between_minus_one_and_one(monkeypatch):
    class Network(torch.nn.Module):
        def forward(self, original, decoded):
            assert original.shape == (1, 3, 4, 5)
            return (decoded - original).mean()

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=lambda net, verbose: Network()))
    assert load_lpips()(flat(0), flat(255)) == pytest.approx(2)
