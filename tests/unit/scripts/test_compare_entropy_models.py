"""Every network of the comparison can be trained by its recipe, and what is finished is not trained again."""

from __future__ import annotations

import pytest

from tto.train.building import build_model
from tto.train.recipe_file import load_recipe


def test_networks_differ_in_what_they_are_compared_for_alone(script):
    """One rate, one training; and every prediction has a weight, which together are one."""
    recipes = [load_recipe(script.RECIPE, network.overrides(7)) for network in script.NETWORKS.values()]
    stages = set()
    for recipe in recipes:
        (stage,) = recipe.stages
        model = build_model(recipe)
        assert model.config.lambdas == (script.LAMBDA,) and recipe.seed == 7
        weights = stage.loss.rate_weights or (1.0,)
        assert len(weights) == model.predictions and sum(weights) == pytest.approx(1)
        stages.add((stage.crop, stage.batch, stage.steps, stage.optimizer, stage.schedule))
    assert len(stages) == 1


def test_what_is_finished_stays_and_what_was_stopped_goes_on(script, photograph, tmp_path, monkeypatch, capsys):
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        photograph(96, 80, 1).save(tmp_path / folder / "a.png")
    networks = {"A, one": script.Network("grm", {"N": 8, "M": 16, "hidden": 8, "reference": False}, script.TWO)}
    networks["A, two"] = script.Network("grm", {"N": 8, "M": 16, "hidden": 8}, script.THREE)
    monkeypatch.setattr(script, "NETWORKS", networks)
    images, out = (tmp_path / "train", tmp_path / "val"), tmp_path / "out"
    small = ["stages.main.crop=64", "stages.main.batch=1", "trackers=[]"]
    script.main(*images, [1], ["A, o"], [*small, "stages.main.steps=2"], out)
    (out / "A-two" / "seed-1").mkdir(parents=True)  # killed before it wrote anything
    recipe = out / "A-one" / "seed-1" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 2", "steps: 3"))
    assert script.finished(out) == []
    capsys.readouterr()
    script.main(*images, [1], None, [*small, "stages.main.steps=3"], out)
    rows = script.finished(out)
    assert [(row.network, row.steps) for row in rows] == [("A, one", 3), ("A, two", 3)]
    lines = capsys.readouterr().out.split("\n")
    assert any("resuming" in line and "step 2" in line for line in lines)
    assert f"{100 * (rows[1].loss / rows[0].loss - 1):+.2f} %" in "".join(lines)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("seed-1/**/*") if path.is_file()}
    script.main(*images, [1], None, small, out)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("seed-1/**/*") if path.is_file()}
