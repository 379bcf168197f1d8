"""Every network of the comparison can be trained by its recipe, and what is finished is not trained again."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import typer

from tto.errors import BadArgument
from tto.train.building import build_model
from tto.train.errors import Diverged
from tto.train.recipe_file import load_recipe


def test_networks_differ_in_what_they_are_compared_for_alone(script):
    """One rate, one training, transforms of one size but for GSDN's own; and every prediction has a weight, which
    together are one.
    """
    stages, transforms = set(), defaultdict(set)
    for name, network in script.NETWORKS.items():
        recipe = load_recipe(script.RECIPE, network.overrides(7))
        (stage,) = recipe.stages
        model = build_model(recipe)
        sizes = Counter(
            (key.split(".")[0], tuple(value.shape))
            for key, value in model.named_parameters()
            if key.startswith(("g_a.", "g_s.")) and not key.endswith((".nu", ".tau"))
        )
        transforms[name.split(",")[0]].add(frozenset(sizes.items()))
        assert model.config.lambdas == (script.LAMBDA,) and recipe.seed == 7
        weights = stage.loss.rate_weights or (1.0,)
        assert len(weights) == model.predictions and sum(weights) == pytest.approx(1)
        stages.add((stage.crop, stage.batch, stage.steps, stage.optimizer, stage.schedule))
    assert len(stages) == 1
    assert transforms.keys() == {"DCAE", "ELIC", "TCM", "FTIC", "mbt2018"} and all(
        len(sizes) == 1 for sizes in transforms.values()
    )


def test_a_name_is_that_network_and_a_beginning_all_that_begin_so(script):
    def asked(name: str) -> list[str]:
        return [network for network in script.NETWORKS if script.names(name, network)]

    assert asked("DCAE, dictionary") == ["DCAE, dictionary"]
    assert asked("ELIC") == ["ELIC, own", "ELIC, dictionary", "ELIC, both"]


def test_a_name_that_is_none_is_refused(script, tmp_path):
    with pytest.raises(BadArgument, match="no network 'ELIC both': there are DCAE, no dictionary; "):
        script.main(tmp_path, tmp_path, [1], only=["ELIC, own", "ELIC both"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_finished_stays_and_what_was_stopped_goes_on(script, photograph, tmp_path, monkeypatch, capsys):
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        photograph(96, 80, 1).save(tmp_path / folder / "a.png")
    networks = {"A, one": script.Network("grm", {"N": 8, "M": 16, "hidden": 8, "reference": False}, script.TWO)}
    networks["A, two"] = script.Network("grm", {"N": 8, "M": 16, "hidden": 8}, script.THREE)
    monkeypatch.setattr(script, "NETWORKS", networks)
    images, out = (tmp_path / "train", tmp_path / "val"), tmp_path / "out"
    small = ["stages.main.crop=64", "stages.main.batch=1", "trackers=[]"]
    script.main(*images, [1], ["A, o"], [*small, "stages.main.steps=2"], out=out)
    (out / "A-two" / "seed-1").mkdir(parents=True)  # killed before it wrote anything
    recipe = out / "A-one" / "seed-1" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 2", "steps: 3"))
    three = [f"data.train={images[0]}", f"data.val={images[1]}", *small, "stages.main.steps=3"]
    assert script.finished(out, three) == []
    capsys.readouterr()
    script.main(*images, [1], None, [*small, "stages.main.steps=3"], out=out)
    rows = script.finished(out, three)
    assert script.finished(out, [*three, "ema_decay=0.5"]) == []
    assert [(row.network, row.steps) for row in rows] == [("A, one", 3), ("A, two", 3)]
    lines = capsys.readouterr().out.split("\n")
    assert any("resuming" in line and "step 2" in line for line in lines)
    assert f"{100 * (rows[1].loss / rows[0].loss - 1):+.2f} %" in "".join(lines)
    with pytest.raises(typer.Exit):
        script.main(*images, [1], None, [*small, "stages.main.steps=4"], out=out)
    assert capsys.readouterr().out.count("other settings") == 2
    small.append("stages.main.steps=3")
    model = out / "A-two" / "seed-1" / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:100])
    assert [row.network for row in script.finished(out, three)] == ["A, one"]
    assert "A, two, seed 1: left out: " in capsys.readouterr().out
    model.unlink()  # killed after its last validation, before it was written
    assert [row.network for row in script.finished(out, three)] == ["A, one"]
    (out / "A-one" / "seed-1-old").mkdir()  # moved away
    script.main(*images, [1], None, small, out=out)
    assert model.is_file() and len(script.finished(out, three)) == 2
    before = {path: path.stat().st_mtime_ns for path in out.rglob("seed-1/**/*") if path.is_file()}
    script.main(*images, [1], None, small, out=out)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("seed-1/**/*") if path.is_file()}


def test_changes_are_of_the_seeds_that_both_have(script, monkeypatch):
    """Seeds lie further apart than networks do."""
    monkeypatch.setattr(script, "NETWORKS", dict.fromkeys(("A, one", "A, two", "A, three", "B, one", "B, two")))
    losses = {("A, one", 1): 1.0, ("A, one", 2): 2.0, ("A, two", 2): 1.9, ("A, three", 1): 0.98, ("A, three", 2): 1.92}
    losses[("B, two", 1)] = 3.0
    lines = script.report([script.Row(*run, 10, 600, 30.0, loss, 0.5, 30.0) for run, loss in losses.items()])
    cells = [[cell.strip() for cell in line.split("|")[5:-1]] for line in lines.splitlines()[2:]]
    assert cells == [
        ["1.5000", "1.0000 … 2.0000", "1 2", "+0.00 %", "+0.00 … +0.00"],
        ["1.9000", "–", "2", "-5.00 %", "–"],
        ["1.4500", "0.9800 … 1.9200", "1 2", "-3.00 %", "-4.00 … -2.00"],
        ["3.0000", "–", "1", "–", "–"],
    ]


def test_a_network_that_cannot_be_trained_does_not_keep_others_from_it(script, tmp_path, monkeypatch, capsys):
    begun = []

    def train(recipe, overrides, folder):
        begun.append(folder.parent.name)
        if len(begun) == 1:
            raise Diverged("the loss is no number any more")

    monkeypatch.setattr(script, "train_recipe", train)
    with pytest.raises(typer.Exit):
        script.main(tmp_path, tmp_path, [1], ["ELIC"], None, out=tmp_path / "out")
    assert len(begun) == 3 and "no number" in capsys.readouterr().out
    assert (tmp_path / "out" / "comparison.csv").is_file()
