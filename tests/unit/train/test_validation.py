from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from base_models import create_model
from tests.unit.train.conftest import smooth_image
from tto.train.objective import RateDistortion
from tto.train.recipe import LossSettings
from tto.train.validation import validate, validation_images


def test_images_are_spread_over_the_set_and_cut_in_the_middle(tmp_path):
    for number in range(5):
        Image.fromarray(np.full((70, 140, 3), number * 10, np.uint8)).save(tmp_path / f"{number}.png")
    smooth_image(1, 30, 200).save(tmp_path / "5.png")
    images = validation_images((str(tmp_path),), 3, 64, torch.device("cpu"))
    assert [tuple(image.shape) for image in images] == [(1, 3, 64, 128), (1, 3, 64, 128), (1, 3, 192, 64)]
    assert [round(image.max().item() * 255) for image in images[:2]] == [0, 20]


def test_result_is_repeatable_and_has_every_quality(tiny_sizes, photos):
    torch.manual_seed(0)
    model = create_model("dcae-small", **tiny_sizes).train()
    images = validation_images((str(photos),), 2, 64, torch.device("cpu"))
    objective = RateDistortion(LossSettings(), model)
    result, again = (validate(model, images, objective, samples=1) for _ in range(2))
    assert (result.loss, result.bpp, result.psnr) == (again.loss, again.bpp, again.psnr)
    assert model.training
    assert len(result.bpp) == len(result.psnr) == len(result.bpp_z) == 8
    assert result.bpp[7] > result.bpp[0] > result.bpp_z[0] > 0
    height, width = images[0].shape[-2:]
    assert [sample.shape for sample in result.samples] == [(height, 4 * width, 3)]
    original = images[0][0].mul(255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(result.samples[0][:, :width], original)


def test_large_pictures_are_measured_at_few_qualities_at_once(tiny_sizes, monkeypatch):
    torch.manual_seed(0)
    model, images = create_model("dcae-small", **tiny_sizes), [torch.rand(1, 3, 64, 128), torch.rand(1, 3, 64, 64)]
    objective = RateDistortion(LossSettings(), model)
    at_once = validate(model, images, objective, samples=1)
    sizes = []
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr("tto.train.validation.BATCH_PIXELS", 3 * 64 * 128)
    found = validate(model, images, objective, samples=1)
    assert sizes == [3, 3, 2, 6, 2]
    for name in ("loss", "bpp", "bpp_z", "psnr"):
        assert getattr(found, name) == pytest.approx(getattr(at_once, name), rel=1e-4)
    assert found.samples[0].shape == at_once.samples[0].shape
    assert np.abs(found.samples[0].astype(int) - at_once.samples[0]).max() <= 1


def test_stages_that_weigh_qualities_otherwise_have_the_same_validation_loss(tiny_sizes):
    torch.manual_seed(0)
    model, images = create_model("dcae-small", **tiny_sizes), [torch.rand(1, 3, 64, 64)]
    losses = {
        validate(model, images, RateDistortion(LossSettings(quality_power=power), model)).loss for power in (0.2, 0.5)
    }
    assert len(losses) == 1


def test_psnr_is_that_of_the_clamped_reconstruction():
    class Constant(torch.nn.Module):
        qualities = 1

        def lambda_at(self, quality):
            return torch.full_like(quality, 0.01)

        def forward(self, x, quality):
            return {"x_hat": x + 3.0, "likelihoods": {"y": torch.ones(1, 1), "z": torch.ones(1, 1)}}

    result = validate(Constant(), [torch.full((1, 3, 64, 64), 0.9)], RateDistortion(LossSettings(), Constant()))
    assert result.psnr[0] == pytest.approx(20.0, abs=1e-3)
    assert result.loss == pytest.approx(0.01 * 255**2 * 0.01, rel=1e-3)
