"""Crops whose latents are refined before a base model learns from them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import tto.train.refined
from base_models import create_model
from base_models.base import Walk, round_through
from base_models.entropy_models import IntegerGaussian
from tto.refine.presets import DESCENT
from tto.refine.rate import gaussian_bits
from tto.train.building import wrap
from tto.train.errors import RecipeError
from tto.train.objective import RateDistortion
from tto.train.recipe import LossSettings
from tto.train.recipe_file import check_recipe
from tto.train.refined import Latents, RefinedShare, Rounded, bits_of, refined_latents, rounded

QUALITY = torch.tensor([2.0, 4.0, 6.0, 8.0], dtype=torch.float64)


@pytest.fixture
def model(tiny_sizes):
    torch.manual_seed(0)
    return create_model("dcae-small", **tiny_sizes).train()


@pytest.fixture
def images():
    torch.manual_seed(2)
    return nn.functional.interpolate(torch.rand(4, 3, 8, 8), size=(64, 64), mode="bicubic").clamp(0, 1)


def share(model: nn.Module, part: float) -> RefinedShare:
    return RefinedShare(model, RateDistortion(LossSettings(), model), 3, part)


def cost(model: nn.Module, latents: Latents, images: torch.Tensor) -> torch.Tensor:
    found = rounded(model, latents, QUALITY)
    x_hat = model.synthesis(found.walk.y_hat, QUALITY).clamp(0, 1)
    distortion = RateDistortion(LossSettings(), model).distortion(x_hat, images, QUALITY)
    return bits_of(model, found) + 64**2 * distortion


def test_refined_latents_cost_less_and_have_no_graph(model, images):
    objective = RateDistortion(LossSettings(), model)
    plain, refined = (refined_latents(model, objective, images, QUALITY, steps) for steps in (0, 8))
    assert torch.allclose(plain.y, model.analysis(images, QUALITY), atol=1e-5)
    assert (cost(model, refined, images) < cost(model, plain, images)).all()
    assert not refined.y.requires_grad and all(parameter.grad is None for parameter in model.parameters())


def test_latents_take_the_steps_that_every_effort_begins_with(model, images, monkeypatch):
    """The relaxation, its temperatures, the rate and Adam are those of `DESCENT`."""
    temperatures, rates, sizes = [], [], []
    phase = replace(
        DESCENT,
        relaxation=lambda u, temperature, generator: (temperatures.append(temperature), round_through(u))[1],
        rate=lambda v, sigma, *more: (rates.append(more[0]), gaussian_bits(v, sigma, *more))[1],
        step_size=lambda done: (sizes.append(done), DESCENT.step_size(done))[1],
    )
    monkeypatch.setattr(tto.train.refined, "DESCENT", phase)
    refined_latents(model, RateDistortion(LossSettings(), model), images, QUALITY, 3)
    assert sizes == [0.0, 0.5, 1.0] and len(rates) == 3
    assert sorted(set(temperatures), reverse=True) == [DESCENT.temperature(done) for done in sizes]


def test_bits_are_those_of_symbols_on_either_grid(images):
    """`u` is what lies between a value and μ: on the integer grid it is no integer."""
    model, quality = create_model("mbt2018", N=16, M=16).train(), torch.ones(4, dtype=torch.float64)
    assert model.grid == "integer"
    latents = refined_latents(model, RateDistortion(LossSettings(), model), images, quality, 0)
    found = rounded(model, latents, quality)
    y = found.u + found.walk.mu
    expected, asked = gaussian_bits(found.u, found.walk.sigma).flatten(1).sum(1), []
    assert torch.allclose(bits_of(model, found), expected, rtol=1e-4)
    bits_of(model, found, lambda v, *more: (asked.append(v), v)[1])
    assert torch.allclose(asked[0], y.round(), atol=1e-5)


def test_rounded_latents_are_the_symbols_that_are_coded(model, images):
    latents = refined_latents(model, RateDistortion(LossSettings(), model), images, QUALITY, 2)
    found = rounded(model, latents, QUALITY)
    assert torch.allclose(found.u, (latents.y - found.walk.mu).round(), atol=1e-5)


def test_decoder_and_entropy_model_learn_from_refined_crops_and_the_encoder_does_not(model, images):
    network = share(model, 1.0)
    torch.manual_seed(3)
    network.objective(network(images, QUALITY), images, QUALITY).loss.sum().backward()
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"g_s", "h_z_s1", "cc_mean_transforms", "cc_scale_transforms", "entropy_bottleneck", "gain_y"} <= learned
    assert not {"g_a", "h_a"} & learned


def test_each_crop_is_refined_or_not_and_stays_in_its_place(model, images, monkeypatch):
    refined_crops = []

    def counted(model, objective, crops, *rest):
        refined_crops.append(crops)
        return refined_latents(model, objective, crops, *rest)

    monkeypatch.setattr(tto.train.refined, "refined_latents", counted)
    network = share(model, 0.5)
    torch.manual_seed(5)
    chosen = torch.rand(4) < 0.5
    assert 0 < chosen.sum() < 4
    torch.manual_seed(5)
    found = network(images, QUALITY)
    assert torch.equal(torch.cat(refined_crops), images[chosen])
    plain, refined = model(images, QUALITY)["x_hat"], share(model, 1.0)(images, QUALITY)["x_hat"]
    expected = torch.where(chosen[:, None, None, None], refined, plain)
    assert torch.allclose(found["x_hat"], expected, atol=1e-5)
    assert not torch.allclose(plain, refined, atol=1e-3)
    assert found["likelihoods"]["y"].shape == (4, *model.latent_shapes(64, 64).y)


def test_encoder_learns_from_the_other_crops_in_bfloat16(model, images):
    network = share(model, 0.5)
    torch.manual_seed(5)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(images, QUALITY)
    network.objective(output, images, QUALITY).loss.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if name.startswith(("g_a.", "h_a.")))


def test_refined_crops_have_likelihoods_by_every_prediction(images):
    model, quality = create_model("grm", N=8, M=16, hidden=24).train(), torch.ones(4, dtype=torch.float64)
    torch.manual_seed(5)
    likelihoods = share(model, 0.5)(images, quality)["likelihoods"]
    assert {name: len(values) for name, values in likelihoods.items()} == dict.fromkeys(("y", "y1", "y2", "z"), 4)
    refined = share(model, 1.0)(images, quality)["likelihoods"]
    assert len({refined[name].log().sum().item() for name in ("y", "y1", "y2")}) == 3


def test_only_what_is_not_refined_is_compiled(model, images, monkeypatch):
    crops = []

    def counting(function):
        return lambda images, quality: (crops.append(len(images)), function(images, quality))[1]

    monkeypatch.setattr(torch, "compile", counting)
    network = share(model, 0.5)
    assert wrap(network, Accelerator(), compiled=True) is network
    torch.manual_seed(5)
    refined = int((torch.rand(4) < 0.5).sum())
    torch.manual_seed(5)
    network(images, QUALITY)
    assert crops == [4 - refined] and 0 < refined < 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refine_share": 0.2}, "`refine_steps` and `refine_share` go together"),
        ({"refine_steps": 2}, "`refine_steps` and `refine_share` go together"),
        ({"refine_steps": 2, "refine_share": 0.2, "objective": "msc"}, "'msc' refines every crop"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    stage = {"name": "x", "crop": 64, "batch": 1, "steps": 1, **settings}
    with pytest.raises(RecipeError, match=message):
        check_recipe({"model": {"name": "dcae-small"}, "stages": [stage]}, "r")


def test_small_scales_cost_as_the_model_codes_them():
    u, sigma = torch.full((1, 2, 1, 1), 0.4), torch.full((1, 2, 1, 1), 0.03)
    walk = Walk(u, torch.zeros_like(u), sigma)
    usual, finer = (SimpleNamespace(y_prior=prior, grid="mean") for prior in (IntegerGaussian(), IntegerGaussian(0.01)))
    found = Rounded(walk, u)
    assert float(bits_of(finer, found)) < 0.1 * float(bits_of(usual, found))


def test_symbols_under_a_factorized_prior_cost_the_same_every_time(images):
    model = create_model("bmshj2018-factorized", N=8, M=12).train()
    objective = RateDistortion(LossSettings(), model)
    quality = torch.ones(len(images), dtype=torch.float64)
    first, second = (refined_latents(model, objective, images, quality, 4).y for _ in range(2))
    assert torch.equal(first, second)
    found = rounded(model, Latents(first, model.hyper_analysis(first, quality)), quality)
    assert torch.equal(bits_of(model, found), bits_of(model, found))
    model.eval()
    expected = -model.y_likelihood(first, found.walk, quality).log2().flatten(1).sum(1)
    assert torch.allclose(bits_of(model, found), expected, rtol=1e-5)
