"""Rate and distortion that fall at the same relative speed."""

from __future__ import annotations

import pytest
import torch

from tto.train.balance import balanced_weights
from tto.train.errors import RecipeError
from tto.train.recipe_file import check_recipe


@pytest.mark.parametrize(
    ("gradients", "losses", "weights"),
    [
        ([[2.0, 0.0], [0.0, 1.0]], [1.0, 0.5], [2 / 3, 4 / 3]),
        ([[3.0, 1.0], [-2.0, 1.0]], [1.0, 1.0], [0.8, 1.2]),
        ([[1.0, 0.0], [2.0, 1.0]], [1.0, 1.0], [2.0, 0.0]),  # the other falls faster whatever the weights are
        ([[0.0, 0.0], [0.0, 0.0]], [1.0, 1.0], [0.0, 2.0]),
    ],
)
def test_both_losses_fall_equally_fast_or_at_least_as_fast_as_the_slower_one(gradients, losses, weights):
    gradients, losses = torch.tensor(gradients), torch.tensor(losses)
    found = balanced_weights(gradients, losses)
    assert found.tolist() == pytest.approx(weights)
    speeds = gradients @ (found @ gradients) / losses
    assert speeds.min() == pytest.approx(float(speeds[int(weights[0] == 0.0)]))


def test_what_is_balanced_already_stays_the_plain_gradient():
    gradients, losses = torch.tensor([[1.0, -2.0], [1.0, 2.0]]), torch.tensor([0.3, 0.3])
    assert balanced_weights(gradients, losses).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("stage", "recipe", "message"),
    [
        ({"objective": "msc"}, {"side": {}}, "'msc' has no rate and distortion to `balance`"),
        ({}, {"compile": True}, "`loss.balance` goes back twice"),
    ],
)
def test_settings_that_do_not_fit_are_refused(stage, recipe, message):
    model = {"name": "dcae-small", **({"side": recipe["side"]} if "side" in recipe else {})}
    stage = {"name": "x", "crop": 64, "batch": 1, "steps": 1, "loss": {"balance": True}, **stage}
    with pytest.raises(RecipeError, match=message):
        check_recipe({"model": model, "stages": [stage], "compile": recipe.get("compile", False)}, "r")
