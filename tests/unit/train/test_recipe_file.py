from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_models import create_model
from tto.refine.distortion import MS_SSIM_LAMBDA
from tto.train.errors import RecipeError
from tto.train.recipe_file import check_recipe, dump_recipe, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


def test_overrides_reach_nested_keys_and_stages_by_name_position_and_star(tiny_recipe, write_recipe):
    path = write_recipe(tiny_recipe)
    overrides = [
        "model.config.M=32",
        "stages.second.batch=4",
        "stages.0.steps=7",
        "stages.*.optimizer.learning_rate=1e-3",
    ]
    recipe = load_recipe(path, overrides, minutes=2.5)
    assert recipe.model.config["M"] == 32
    assert [(s.batch, s.steps, s.optimizer.learning_rate) for s in recipe.stages] == [(2, 7, 1e-3), (4, 3, 1e-3)]
    assert recipe.minutes == 2.5


def test_one_string_stands_for_a_list_of_one(tiny_recipe, write_recipe):
    recipe = load_recipe(write_recipe(tiny_recipe), ["data.train=photos", "only=second", "trackers=wandb"])
    assert (recipe.data.train, recipe.only, recipe.trackers) == (("photos",), ("second",), ("wandb",))


def test_resolved_recipe_reads_back_equal(tiny_recipe, write_recipe):
    recipe = load_recipe(write_recipe(tiny_recipe))
    again = write_recipe({}, "again.yaml")
    again.write_text(dump_recipe(recipe))
    assert load_recipe(again) == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.0.batch=0", "stages.0.batch: found 0; input should be greater than or equal to 1"),
        ("stages.0.batch=many", "stages.0.batch: found 'many'"),
        ("stages.0.lose=1", "stages.0.lose: unknown key; allowed: name, crop, batch, trainable, loss"),
        ("stages.0.optimizer.name=sgd", "stages.0.optimizer.name: found 'sgd'; input should be 'adam' or 'muon'"),
        ("data.too_small=drop", "data.too_small: found 'drop'; input should be 'resize' or 'skip'"),
        ("modle.name=x", "modle: unknown key; allowed: model, stages, data"),
        ("stages.third.batch=1", "found third, allowed: first, second"),
        ("stages.0.epochs=2", "a stage has `epochs` or `steps`, not both"),
        ("stages.0.share=0.5", "either every stage has a `share` of the minutes, or none has"),
        ("only=third", "`only` names unknown stage 'third'; allowed: first, second"),
        ("batch", "expected key=value"),
        ("seed.x=1", "found 3, which has no key 'x'"),
        ("seed={", "the value is no YAML"),
        ("seed=2024-99-99", "the value is no YAML"),
        ("seed=!!bool x", "the value is no YAML"),
    ],
)
def test_wrong_override_names_file_key_found_and_allowed(tiny_recipe, write_recipe, override, message):
    path = write_recipe(tiny_recipe)
    with pytest.raises(RecipeError) as raised:
        load_recipe(path, [override])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value) or "override" in str(raised.value)


def test_missing_key_is_named():
    with pytest.raises(RecipeError, match="x.yaml: model: missing"):
        check_recipe({"stages": [{"name": "a", "crop": 64, "batch": 1, "steps": 1}]}, "x.yaml")


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "", "\x00"])
def test_file_that_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(RecipeError, match="bad.yaml"):
        load_recipe(path)


def test_absent_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match="cannot read recipe .*absent.yaml: No such file"):
        load_recipe(tmp_path / "absent.yaml")


def test_time_share_needs_minutes():
    with pytest.raises(RecipeError, match="needs `minutes`"):
        load_recipe(RECIPES / "dcae-small.yaml")


def test_published_dcae_recipes_are_those_of_the_paper():
    recipe = load_recipe(RECIPES / "dcae-openimages-mse.yaml", ["model.config.lambdas=[0.0250]"])
    assert recipe.model.config == {"lambdas": [0.025]}
    found = [(s.epochs, s.batch, s.crop, s.optimizer.name, s.optimizer.learning_rate) for s in recipe.stages]
    assert found == [(80, 16, 256, "adam", 1e-4), (20, 16, 256, "adam", 1e-5)]
    ms_ssim = load_recipe(RECIPES / "dcae-openimages-msssim.yaml")
    assert [s.loss.distortion for s in ms_ssim.stages] == ["ms-ssim"] * 2
    assert MS_SSIM_LAMBDA * ms_ssim.model.config["lambdas"][0] == pytest.approx(16.64)


def stages_of(recipe):
    return [(s.epochs, s.batch, s.crop, s.optimizer.name, s.optimizer.learning_rate) for s in recipe.stages]


SHORT_STAGES = [(20, 8, 256, "adam", 1e-4), (5, 8, 256, "adam", 1e-5)]


@pytest.mark.parametrize(
    ("name", "entries", "scales"),
    [("baseline", 0, 0), ("dca", 128, 0), ("msfa", 128, 3), ("global-token", 8, 0)],
)
def test_ablation_recipes_are_those_of_the_paper(name, entries, scales):
    recipe = load_recipe(RECIPES / f"dcae-ablation-{name}.yaml")
    with torch.device("meta"):
        config = create_model(recipe.model.name, **recipe.model.config).config
    assert (config.swin_layers, config.dict_entries, config.msfa_scales) == ((0, 0, 4), entries, scales)
    assert stages_of(recipe) == SHORT_STAGES


@pytest.mark.parametrize(
    ("column", "model"),
    [
        ("elic-own", "elic"), ("elic-dictionary", "elic-dictionary"), ("elic-both", "elic-both"),
        ("tcm-own", "tcm-n128"), ("tcm-dictionary", "tcm-dictionary"),
        ("ftic-own", "ftic"), ("ftic-dictionary", "ftic-dictionary"),
    ],
)  # fmt: skip
def test_recipes_of_exchanged_entropy_models_are_columns_of_the_supplement(column, model):
    recipe = load_recipe(RECIPES / f"exchange-{column}.yaml")
    assert recipe.model.name == model and recipe.model.config["lambdas"] == [0.013]
    assert recipe.model.config.get("autoencoder", model) in (model, "tcm-n128")  # the size of the paper's Table 1
    assert stages_of(recipe) == SHORT_STAGES


def test_tcm_recipe_is_that_of_its_code():
    recipe = load_recipe(RECIPES / "tcm-openimages-mse.yaml")
    found = [(s.epochs, s.batch, s.optimizer.learning_rate) for s in recipe.stages]
    assert found == [(45, 8, 1e-4), (3, 8, 1e-5), (2, 8, 1e-6)]


def test_grm_recipe_weighs_predictions_as_the_paper_does():
    stages = load_recipe(RECIPES / "grm.yaml").stages
    assert [stage.loss.rate_weights for stage in stages] == [(0.3, 0.3, 0.4), (0.1, 0.1, 0.8), (0.1, 0.1, 0.8)]
    assert (stages[0].epochs, stages[0].batch, stages[0].crop) == (1000, 8, 512)


def test_cgoo_recipe_is_that_of_the_supplement():
    recipe = load_recipe(RECIPES / "cgoo-div2k.yaml")
    assert [(s.name, s.epochs) for s in recipe.stages] == [
        ("ddt", 500),
        ("msc", 100),
        ("codebook-warm-up", 200),
        ("codebook", 1000),
    ]
    assert recipe.data.half_size_copies
    assert {s.optimizer.learning_rate for s in recipe.stages} == {1e-4}


def test_aliases_that_would_grow_are_refused_before_they_do(write_recipe):
    path = write_recipe({})
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    path.write_text("\n".join(["a0: &a0 [1]", *levels]))
    with pytest.raises(RecipeError, match="more than 10000 values"):
        load_recipe(path)
    path.write_text("a: &a [*a]")
    with pytest.raises(RecipeError, match="more than 10000 values"):
        load_recipe(path)
    path.write_text("a: " + "[" * 20_000)
    with pytest.raises(RecipeError, match="is no YAML"):
        load_recipe(path)


def test_aliases_of_a_few_values_are_read(tiny_recipe, write_recipe):
    path = write_recipe(tiny_recipe)
    path.write_text(path.read_text() + "\nonly: &names [first]\n")
    assert load_recipe(path).only == ("first",)
