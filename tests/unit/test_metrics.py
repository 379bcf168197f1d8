from __future__ import annotations

import math

import numpy as np
import pytest

from tto.metrics import ms_ssim, ms_ssim_db, psnr, ssimulacra2


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


@pytest.mark.parametrize("metric", [psnr, ms_ssim, ssimulacra2])
@pytest.mark.parametrize("decoded", [flat(0, 4, 6), flat(0)[..., :1], flat(0)[..., 0], flat(0).astype(np.float32)])
def test_anything_but_two_pictures_of_one_size_is_refused(metric, decoded):
    with pytest.raises(ValueError):
        metric(flat(0), decoded)


def test_ssimulacra2_falls_with_noise_and_is_a_hundred_for_equal_pictures():
    image = np.kron(textured(12, 10), np.ones((8, 8, 1), np.uint8))
    noise = np.random.default_rng(1).normal(0, 1, image.shape)
    noisy = [np.clip(image + sigma * noise, 0, 255).astype(np.uint8) for sigma in (2, 8)]
    assert ssimulacra2(image, image) == pytest.approx(100)
    assert 100 > ssimulacra2(image, noisy[0]) > ssimulacra2(image, noisy[1])


@pytest.mark.parametrize(
    "height, width, noise, expected", [(96, 70, 6, 79.85809831), (161, 203, 25, 53.05817028), (64, 64, 2, 92.25681495)]
)
def test_ssimulacra2_is_what_its_authors_program_prints(height, width, noise, expected):
    """`ssimulacra2 original.png decoded.png`, version 2.1, which computes in float32."""
    y, x = np.mgrid[:height, :width]
    waves = (100 * np.sin(x / 7 + y / 31) * np.cos(y / 11), 90 * np.sin((x + y) / 9), 80 * np.cos(x / 5 - y / 13))
    original = (128 + np.stack(waves, 2)).round().astype(np.uint8)
    added = np.random.default_rng(0).integers(-noise, noise + 1, original.shape)
    decoded = np.clip(original.astype(int) + added, 0, 255).astype(np.uint8)
    assert ssimulacra2(original, decoded) == pytest.approx(expected, abs=0.05)


def test_ssimulacra2_of_a_tiny_picture_is_nan():
    assert math.isnan(ssimulacra2(flat(1, 7, 40), flat(2, 7, 40)))
