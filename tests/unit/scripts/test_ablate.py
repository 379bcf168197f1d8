"""The ablation: one file for each variant, changes against the right anchors, and bounds without rate."""

from __future__ import annotations

import csv

import pytest
import torch

from base_models import load_checkpoint
from tto.errors import BadArgument
from tto.refine.compensation import ChooseCodes
from tto.refine.descent import Phase
from tto.refine.flips import FlipSymbols
from tto.refine.operation import Operation, SideSearch
from tto.refine.quantization_step import ChooseStep
from tto.refine.relaxations import SoftRounding
from tto.refine.schedules import Constant
from tto.refine.transform import FitTransform
from tto.side.weights import save_with_side_modules


@pytest.fixture
def picture(tmp_path, photograph):
    path = tmp_path / "picture.png"
    photograph(80, 60).save(path)
    return path


def test_every_variant_has_a_file_for_each_quality(
    script, picture, tiny_checkpoint, make_side_modules, tmp_path, monkeypatch
):
    model = load_checkpoint(tiny_checkpoint)
    checkpoint = tmp_path / "side.safetensors"
    save_with_side_modules(model, make_side_modules(model.config.M), checkpoint)
    monkeypatch.setattr(
        script, "ALONE", {"latents": ((FlipSymbols(2),),), "latents + QP": ((FlipSymbols(2),), (FlipSymbols(1),))}
    )
    monkeypatch.setattr(script, "AFTERWARDS", {"all": (FitTransform(), ChooseCodes(2))})
    script.ablate([picture], str(checkpoint), [3.0, 6.0], crop=48, bounds=True, out=tmp_path / "out")
    with open(tmp_path / "out" / "ablation.csv") as file:
        rows = list(csv.DictReader(file))
    variants = ["base", "latents", "latents + QP", script.FULL, f"{script.FULL} + MSC everywhere", "all"]
    assert [(row["variant"], row["quality"]) for row in rows] == [(v, q) for q in ("3.0", "6.0") for v in variants]
    J = {(row["variant"], row["quality"]): float(row["J"]) for row in rows}
    for q in ("3.0", "6.0"):
        assert J["all", q] <= J[script.FULL, q] * 1.001  # estimated when chosen, real here
    assert "| base |" in (tmp_path / "out" / "ablation.md").read_text()
    with open(tmp_path / "out" / "bounds.csv") as file:
        bounds = {(row["bound"], row["quality"]): float(row["change"]) for row in csv.DictReader(file)}
    for q in ("3.0", "6.0"):
        assert bounds["MSC with codebook, no rate", q] <= bounds["MSC with codebook and rate", q] <= 0
        free, priced = (bounds[f"DDT with quantized syntax{end}", q] for end in (", no rate", " and rate"))
        assert bounds["DDT without syntax, no rate", q] <= free + 1e-3 < priced


def test_summary_compares_with_the_base_and_with_latents_and_step(script):
    rows = [
        script.Row("a.png", "pixels", q, variant, 100, bpp * q, 30 + q, J, 1.0, 0.1)
        for q in (2.0, 4.0)
        for variant, bpp, J in (("base", 1.0, 2.0), (script.FULL, 0.9, 1.6), ("all", 0.8, 1.2))
    ]
    last = script.summary(rows).splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")[1:9]] == [
        "all", "100", "33.00", "-40.00", "-25.00", "-25.00", "-20.00", "1.0",
    ]  # fmt: skip


def test_relaxed_rate_weighs_less_in_the_first_phase_alone(script):
    stage = (Phase(10, SoftRounding(), Constant(0.5)), FlipSymbols(4), Phase(3, SoftRounding(), Constant(0.5)))
    ((first, *rest), other) = script.relaxed((stage, stage))
    assert tuple(rest) == stage[1:] and other == stage
    assert (first.steps, first.step_size) == (stage[0].steps, stage[0].step_size)
    assert [first.rate_weight(done) for done in (0.0, 0.5, 1.0)] == pytest.approx([0.7, 0.85, 1])


def test_latents_alone_have_nothing_beside_them_and_the_efforts_operations_else(script):
    for name, stages in script.ALONE.items():
        operations = [operation for stage in stages for operation in stage]
        assert not any(isinstance(operation, SideSearch) for operation in operations)
        assert any(isinstance(operation, ChooseStep) for operation in operations) == (name == "latents + QP")


def test_a_stage_begins_with_the_best_of_the_one_before(script, picture, tiny_checkpoint):
    found = []

    class Stray(Operation):
        steps = 1

        def run(self, state):
            state.y = state.y + 5

    class Look(Stray):
        def run(self, state):
            found.append(torch.equal(state.y, state.best.y))

    bench = script.Bench(script.load_codec(str(tiny_checkpoint)), script.load_square(picture, 48), "a", 3.0)
    bench._refined(((Stray(),), (Look(),)))
    assert found == [True]


def test_every_search_for_side_information_is_tried_alone(script):
    for search in script.SEARCHES:
        (stage,) = (stage for name, stage in script.AFTERWARDS.items() if name.endswith(f"+ {search.__name__}"))
        assert {type(operation) for operation in stage} == {search, FlipSymbols}
    assert len(script.SEARCHES) == 3


def test_a_model_without_side_modules_is_refused(script, picture, tiny_checkpoint, tmp_path):
    with pytest.raises(BadArgument, match="no side modules"):
        script.ablate([picture], str(tiny_checkpoint), [3.0], out=tmp_path / "out")
