"""Side modules trained on a frozen base: the four stages, their figures, and what is exported."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from base_models import create_model, fingerprint, load_checkpoint
from tto.side.weights import load_side_modules, save_with_side_modules
from tto.train.building import build_model, export
from tto.train.errors import FrozenBaseChanged, MissingModule, RecipeError
from tto.train.optimizers import trainable_names
from tto.train.recipe import LossSettings, ModelSettings, Recipe, SideSettings, StageSettings
from tto.train.recipe_file import check_recipe
from tto.train.side_figures import side_figures
from tto.train.side_stages import MASK_BITS, STAGES, init_from_images, random_mask

QUALITY = torch.tensor([2.0, 6.0], dtype=torch.float64)


@pytest.fixture
def stage():
    return StageSettings(name="ddt", crop=64, batch=2, steps=1, objective="ddt", trainable=("*",))


@pytest.fixture
def recipe(tiny_checkpoint, tiny_sizes, stage):
    settings = ModelSettings("dcae-small", tiny_sizes, str(tiny_checkpoint), SideSettings(codes=8))
    return Recipe(model=settings, stages=(stage,))


@pytest.fixture
def model(recipe):
    return build_model(recipe)


@pytest.fixture
def images():
    torch.manual_seed(2)
    return torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8), size=(64, 64), mode="bicubic").clamp(0, 1)


def test_base_stays_in_evaluation_mode_and_is_never_trained(model, stage):
    assert model.training and not model.base.training
    names = trainable_names(model, stage)
    assert "ddt.encoder.conv1.weight" in names and "msc.codebook" in names
    assert not [name for name in names if name.startswith("base.")]


def test_new_side_modules_pass_on_the_strongest_directions(model, images):
    init_from_images(model, images)
    stage = STAGES["msc"](model, LossSettings())
    steps = stage.newton_step(stage.place(images, QUALITY))
    once = model.msc.decoder(model.msc.encoder(steps))
    again = model.msc.decoder(model.msc.encoder(once))
    assert (again - once).norm() < 1e-4 * once.norm() and once.norm() > 0.7 * steps.norm()
    rank = torch.linalg.matrix_rank(model.msc.decoder(torch.eye(16)[:, :, None, None])[:, :, 0, 0], rtol=1e-4)
    assert rank == 8  # half of the width
    syntax = torch.randn(5, 9)
    matrix = model.ddt.decoder(syntax).flatten(1)
    assert (matrix - 0.05 * syntax).abs().max() < 0.02
    assert model.ddt.decoder(torch.zeros(1, 9)).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["ddt", "msc", "codebook"])
def test_stage_lowers_its_loss_and_leaves_the_base_alone(name, model, images):
    torch.manual_seed(0)
    init_from_images(model, images)
    if name == "codebook":  # it begins with the codes that the warm-up found
        warm_up = STAGES["codebook-warm-up"](model, LossSettings()).train()
        for _ in range(3):
            warm_up(images, QUALITY)
    side = STAGES[name](model, LossSettings()).train()
    trained = [p for n, p in model.named_parameters() if not n.startswith("base.")]
    model.base.requires_grad_(False)
    adam = torch.optim.Adam(trained, lr=3e-3)
    losses = []
    for _ in range(15):
        torch.manual_seed(1)
        loss = side(images, QUALITY)["loss"].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.check_base()


def test_codebook_is_what_the_quantizer_looks_up(model, images):
    init_from_images(model, images)
    warm_up = STAGES["codebook-warm-up"](model, LossSettings()).train()
    values = [warm_up(images, QUALITY) for _ in range(3)]
    assert values[-1]["explained"].min() > 0.3 and not values[-1]["loss"].requires_grad
    features = warm_up.features(warm_up.place(images, QUALITY))
    codes, indexes, _ = model.quantizer.eval()(features)
    side = model.side_modules()
    assert torch.equal(side.msc.codebook[indexes].permute(0, 3, 1, 2), codes)
    assert torch.allclose(side.msc.compensations()[indexes[0, 1, 2]], side.msc.decoder(codes)[0, :, 1, 2], atol=1e-6)


def test_modules_that_are_loaded_go_on_with_what_their_codes_cost(model, recipe, tmp_path):
    model.count_codes(torch.tensor([3, 3, 3, 5]))
    side = model.side_modules()
    save_with_side_modules(model.base, side, tmp_path / "model.safetensors", None)
    settings = replace(recipe.model, checkpoint=str(tmp_path / "model.safetensors"))
    again = build_model(replace(recipe, model=settings))
    assert torch.equal(again.side_modules().msc.frequencies, side.msc.frequencies)
    assert again.usage[3] > again.usage[5] > again.usage[0]


def test_side_stages_have_one_distortion(recipe, stage):
    stage = replace(stage, crop=192, loss=LossSettings(distortion="ms-ssim"))
    with pytest.raises(RecipeError, match="ddt.loss.distortion: found ms-ssim"):
        build_model(replace(recipe, stages=(stage,)))


def test_frequencies_are_those_of_the_codes_in_use(model):
    for _ in range(600):
        model.count_codes(torch.tensor([3, 3, 3, 5]))
    frequencies = model.side_modules().msc.frequencies
    assert frequencies[3] / 65536 == pytest.approx(0.75, abs=0.01)
    assert frequencies[5] / 65536 == pytest.approx(0.25, abs=0.01)
    assert int(frequencies.min()) >= 1


def test_mask_is_a_random_part_of_the_positions_that_pay():
    torch.manual_seed(0)
    saved = torch.linspace(-60.0, 20.0, 256).view(1, 16, 16).repeat(2, 1, 1)
    mask = random_mask(saved)[:, 0].bool()
    assert not mask[saved < 0].any()
    assert 0.5 < mask[saved > MASK_BITS].double().mean() < 1.0
    assert not torch.equal(mask[0], mask[1])


def test_mask_has_some_positions_even_where_none_pays():
    assert 0 < random_mask(torch.linspace(-60.0, -20.0, 256).view(1, 16, 16)).sum() <= 0.06 * 256


def test_choice_saves_distortion(model, images):
    """On a codebook that holds the residual of a position, this is what the position takes, and it pays."""
    init_from_images(model, images)
    stage = STAGES["codebook"](model, LossSettings()).eval()
    place = stage.place(images, QUALITY)
    with torch.no_grad():
        slope = place.slope
        model.msc.codebook.copy_(-slope[0, :, 1, :].T.repeat(2, 1) / slope.norm(dim=1).max() * 0.1)
        choice = stage.choose(place)
        found = stage.compensated(place, stage.look_up(choice.codes))
        old, new = (stage.distortion_bits(x_hat, images, QUALITY) for x_hat in (found.before, found.after))
    assert choice.codes.shape == (2, 4, 4)
    assert (new < old).all()


def test_latents_are_refined_before_side_modules_see_them(model, images):
    plain, refined = (STAGES["msc"](model, LossSettings(), steps).quantized(images, QUALITY) for steps in (0, 6))
    costs = []
    for latents in (plain, refined):
        error = (model.base.synthesis(latents.y_hat, QUALITY).clamp(0, 1) - images).square().mean((1, 2, 3))
        costs.append(latents.bits + model.lambda_at(QUALITY) * 255**2 * error * 64**2)
    assert (costs[1] < costs[0]).all()
    assert not refined.y_hat.requires_grad and not refined.bits.requires_grad


def test_no_transform_beats_the_best_matrix(model, images):
    figures = side_figures(STAGES["ddt"](model, LossSettings()), [images[:1]])
    assert figures["psnr_gained_db"] == 0.0  # a new one does nothing
    assert figures["psnr_gained_by_best_matrix_db"] > 0.01


def test_figures_of_the_last_stage(model, images):
    init_from_images(model, images)
    figures = side_figures(STAGES["codebook"](model, LossSettings()), [images[:1]])
    assert len(figures["psnr_gained_db_per_quality"]) == len(figures["J_gained_percent_per_quality"]) == 8
    assert 1 <= figures["perplexity"] <= 8 and 0 < figures["live_codes"] <= 1 and 0 <= figures["positions_on"] <= 1


def test_figures_are_means_over_images_at_every_quality(model, images, monkeypatch):
    init_from_images(model, images)
    stage = STAGES["codebook"](model, LossSettings())
    together = side_figures(stage, [images[:1], images[1:]])
    alone = [side_figures(stage, [image[None]]) for image in images]
    monkeypatch.setattr("tto.train.validation.BATCH_PIXELS", 3 * 64 * 64)
    in_parts = side_figures(stage, [images[:1], images[1:]])
    for name in ("psnr_gained_db_per_quality", "J_gained_percent_per_quality"):
        expected = torch.tensor([figures[name] for figures in alone]).mean(0).tolist()
        assert together[name] == pytest.approx(expected, rel=1e-3, abs=1e-5)
        assert in_parts[name] == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_export_holds_the_base_unchanged(model, tiny_checkpoint, tmp_path):
    export(model, tmp_path / "both.safetensors", torch.float16)
    assert fingerprint(load_checkpoint(tmp_path / "both.safetensors")) == fingerprint(load_checkpoint(tiny_checkpoint))
    assert load_side_modules(tmp_path / "both.safetensors").config.codes == 8


def test_next_run_goes_on_with_the_side_modules_of_the_checkpoint(model, recipe, tiny_sizes, tmp_path, images):
    with torch.no_grad():
        model.msc.codebook[3, 5] = 0.75
    export(model, tmp_path / "both.safetensors", None)
    path = str(tmp_path / "both.safetensors")
    settings = ModelSettings("dcae-small", tiny_sizes, path, SideSettings(codes=8))
    again = build_model(Recipe(model=settings, stages=recipe.stages))
    init_from_images(again, images)
    assert again.msc.codebook[3, 5] == 0.75
    assert all(p.requires_grad for n, p in again.named_parameters() if n.startswith("msc"))


def test_changed_base_is_not_exported(model, tmp_path):
    with torch.no_grad():
        model.base.g_s[0].bias[0] += 1e-3
    with pytest.raises(FrozenBaseChanged, match="frozen base"):
        export(model, tmp_path / "both.safetensors", None)
    assert not list(tmp_path.iterdir())


def test_objective_and_model_must_fit(tiny_sizes):
    tree = {"model": {"name": "dcae-small"}, "stages": [{"name": "x", "crop": 64, "batch": 1, "steps": 1}]}
    tree["stages"][0]["objective"] = "msc"
    with pytest.raises(RecipeError, match="objective 'msc', which is for models with `side`"):
        check_recipe(tree, "r")
    tree["stages"][0]["objective"] = "rate-distortion"
    tree["model"]["side"] = {"codes": 4}
    with pytest.raises(RecipeError, match="'rate-distortion', which is for models without `side`"):
        check_recipe(tree, "r")


def test_base_of_another_size_is_refused(tiny_checkpoint, stage):
    settings = ModelSettings("dcae-small", {}, str(tiny_checkpoint), SideSettings())
    with pytest.raises(RecipeError, match="does not fit the recipe's model"):
        build_model(Recipe(model=settings, stages=(stage,)))


def test_stage_without_its_modules_stops_with_one_line(tiny_sizes):
    stage = StageSettings(name="tuning", crop=64, batch=1, steps=1, trainable=("ddt.*",))
    with pytest.raises(MissingModule, match="stage 'tuning' trains 'ddt..', which model 'dcae-small' does not have"):
        trainable_names(create_model("dcae-small", **tiny_sizes), stage)
