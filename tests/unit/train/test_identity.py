from __future__ import annotations

from tto.train.identity import run_identity
from tto.train.recipe_file import load_recipe


def test_only_keys_that_decide_the_result_count(tiny_recipe, write_recipe):
    path = write_recipe(tiny_recipe)
    base = run_identity(load_recipe(path), 5)
    free = [
        "minutes=3",
        "log_every=9",
        "data.workers=2",
        "data.train=elsewhere",
        "validation.images=3",
        "only=second",
        "stages.0.steps=9",
        "stages.*.micro_batch=1",
        "stages.*.optimizer.learning_rate=1e-5",
        "precision=bf16",
    ]
    assert run_identity(load_recipe(path, free), 5) == base
    for override in (
        "stages.0.batch=4",
        "seed=1",
        "stages.0.optimizer.name=adam",
        "model.config.M=8",
        "data.too_small=resize",
    ):
        assert run_identity(load_recipe(path, [override]), 5) != base
    assert run_identity(load_recipe(path), 6) != base


def test_keys_say_where_and_defaults_are_left_out(tiny_recipe, write_recipe):
    identity = run_identity(load_recipe(write_recipe(tiny_recipe)), 5)
    assert identity["stages.second.schedule.decay"] == 1.0
    assert identity["stages.first.batch"] == 2
    assert not any("warmup" in key or "clip" in key for key in identity)
