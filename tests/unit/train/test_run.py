from __future__ import annotations

import pytest

from tto.train.recipe import ModelSettings, Recipe, StageSettings
from tto.train.run import create_accelerator


@pytest.mark.parametrize(("multiplies", "precision"), [(True, "bf16"), (False, "no")])
def test_automatic_precision_is_bfloat16_where_the_machine_multiplies_it(monkeypatch, multiplies, precision):
    monkeypatch.setattr("tto.train.run.descends_in_bfloat16", lambda device: multiplies)
    stage = StageSettings(name="a", crop=64, batch=1, steps=1)
    recipe = Recipe(model=ModelSettings("dcae-small"), stages=(stage,), precision="auto", trackers=())
    assert create_accelerator(recipe, None).mixed_precision == precision
