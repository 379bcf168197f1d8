"""The comparison of refiners looks at real files, at the steps it says."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import astuple

import pytest

from base_models import save_checkpoint
from tto.codec import Codec
from tto.image import load_picture
from tto.models import load_model
from tto.refine import engine
from tto.refine.descent import Phase
from tto.refine.distortion import SquaredError
from tto.refine.flips import FlipSymbols
from tto.refine.plan import Plan
from tto.refine.problem import Problem
from tto.refine.relaxations import SoftRounding
from tto.refine.schedules import Constant
from tto.refine.state import Callbacks


@pytest.fixture
def codec(tiny_checkpoint) -> Codec:
    return Codec(load_model(str(tiny_checkpoint)), "cpu")


@pytest.fixture
def cell(script):
    """A function that gives the cell of a method on a picture."""

    def make(method: str, most_steps: int = 2000):
        return script.Cell("m", "0f", "p", "1e", 0, 3.0, method, most_steps)

    return make


@pytest.fixture
def measured(script, monkeypatch) -> list:
    """Cells that were measured, with what was asked for; it takes no time, and gives a row of each kind."""
    asked = []

    def measure(codec, picture, cell, everything):
        asked.append((cell, everything))
        kinds = (0, 1) if everything and cell.has_everything else (0,)
        return [script.Row(*astuple(cell), kind, 1, 1.0, 0.5, 100, 1.0, 0.0) for kind in kinds]

    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(script, "plot", lambda rows, path: None)
    return asked


def test_rows_are_of_the_best_so_far_after_the_steps_they_name(script, tiny_checkpoint, photograph, tmp_path):
    path = tmp_path / "picture.png"
    photograph(80, 60).save(path)
    arguments = ([path], str(tiny_checkpoint), [3.0], "sga,adagrad,fast")
    script.compare(*arguments, crop=48, most_steps=7, out=tmp_path / "out")
    table = (tmp_path / "out" / "refiners.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["steps"], row["change"]) for row in rows if row["method"] == "none"] == [("0", "0.0")]
    assert (tmp_path / "out" / "refiners.png").stat().st_size > 1000
    for method in ("sga", "adagrad", "fast"):
        ours = [row for row in rows if row["method"] == method]
        assert [int(row["steps"]) for row in ours] == [1, 2, 5, 7]
        assert all(float(row["change"]) <= 0.5 for row in ours)
        assert all(float(row["seconds"]) > float(row["decode_seconds"]) > 0 for row in ours)
    script.compare(*arguments, crop=48, most_steps=7, out=tmp_path / "out")
    assert (tmp_path / "out" / "refiners.csv").read_text() == table  # nothing was left to measure


def test_stages_begin_with_the_best_latents_of_the_one_before(script, codec, photograph, monkeypatch):
    """As they do in `tto compress`: the same steps with nothing beside latents end with the same candidate."""
    picture = load_picture(photograph(80, 60))
    stages = ((FlipSymbols(3),), (Phase(3, SoftRounding(), Constant(0.5)), FlipSymbols(3)))
    monkeypatch.setattr(engine, "finished", lambda problem, best: best)  # fits no filter
    monkeypatch.setattr(script, "LOOKS", (1,))
    y, z = codec.analyse(picture.rgb, 3.0)
    lambda_ = float(codec.model.lambda_at(3.0))
    problem = Problem(codec.model, 3.0, lambda_, picture.height, picture.width, SquaredError(picture.rgb))
    best = engine.refine(problem, y, z, 128, Plan(stages), Callbacks()).candidates[-1]
    looks = script.looks(problem, y, z, stages, 2000)
    assert looks[-1][2].J == best.J
    assert 0 < looks[0][1] < looks[-1][1]


def test_seconds_are_those_of_a_whole_compression(script, codec, photograph, monkeypatch, cell):
    analyse, pack = codec.analyse, codec.pack
    monkeypatch.setattr(codec, "analyse", lambda *arguments: time.sleep(0.3) or analyse(*arguments))
    monkeypatch.setattr(codec, "pack", lambda *arguments, **options: time.sleep(0.3) or pack(*arguments, **options))
    (row,) = script.measure(codec, load_picture(photograph(80, 60)), cell("none"))
    assert row.seconds - row.decode_seconds >= 0.6


def test_latents_alone_are_found_and_priced_without_a_filter(script):
    assert any(isinstance(o, script.SideSearch) for stage in script.METHODS["fast"] for o in stage)
    assert not any(isinstance(o, script.SideSearch) for stages in script.LATENTS.values() for s in stages for o in s)


def test_everything_is_what_a_file_of_that_effort_is(script, codec, photograph, cell):
    picture = load_picture(photograph(80, 60))
    *alone, row = script.measure(codec, picture, cell("fast"), everything=True)
    assert row.everything and not any(other.everything for other in alone)
    result = codec.compress(picture, 3.0, effort="fast")
    assert (row.bytes, row.J, row.steps) == (len(result.data), result.J, result.steps)


def test_latents_of_others_get_the_same_beside_them(script, codec, photograph, monkeypatch, cell):
    monkeypatch.setattr(script, "LEAST_STEPS", 5)
    picture = load_picture(photograph(80, 60))
    rows = list(script.measure(codec, picture, cell("adagrad", 8), everything=True))
    plain, full = ({row.steps: row for row in rows if row.everything == kind} for kind in (0, 1))
    assert list(full) == [steps for steps in plain if steps >= 5]
    assert all(row.J <= plain[steps].J for steps, row in full.items())


@pytest.mark.parametrize("method", ["sga", "sga+", "deterministic", "uniform-noise", "universal-dic"])
def test_peers_that_anneal_run_for_their_published_2000_steps(script, method):
    (phase,) = script.METHODS[method][0]
    assert phase.steps == 2000
    assert phase.betas == (0.9, 0.999)


def test_temperatures_of_peers_are_the_published_ones(script):
    sga, dic = (script.METHODS[method][0][0].temperature for method in ("sga", "universal-dic"))
    assert sga(0.35) == pytest.approx(0.5)
    assert sga(1.0) == pytest.approx(0.5 * 2.718281828**-1.3)
    assert dic(0.5) == pytest.approx(0.5 * 2.718281828**-1.0)
    for step in (0, 699, 700, 1500, 2000):
        assert sga(step / 2000) == pytest.approx(min(0.5, 0.5 * math.exp(-1e-3 * (step - 700))))


def test_a_peer_whose_step_size_falls_once_does_so_after_four_fifths(script):
    sizes = script.METHODS["universal-dic"][0][0].step_size
    assert [sizes(t) for t in (0, 0.79, 0.8, 1)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_rows_of_other_weights_pixels_and_lengths_are_not_taken_for_these(
    script, tiny_checkpoint, small_model, photograph, tmp_path, measured
):
    model, pictures = tmp_path / "model.safetensors", [tmp_path / folder / "1.png" for folder in ("a", "b")]
    for seed, path in enumerate(pictures):
        path.parent.mkdir()
        photograph(80, 60, seed).save(path)
    model.write_bytes(tiny_checkpoint.read_bytes())

    def added(paths, most_steps: int = 100) -> int:
        before = len(measured)
        script.compare(paths, str(model), [3.0], "sga", most_steps=most_steps, out=tmp_path)
        return len(measured) - before

    assert added(pictures) == 4  # of each picture, without refinement and with
    assert added(pictures[:1]) == 0
    assert added(pictures[:1], 2000) == 2
    save_checkpoint(small_model, model)
    assert added(pictures[:1]) == 2
    assert len((tmp_path / "refiners.csv").read_text().splitlines()) == len(measured) + 1 == 9


def test_what_travels_beside_latents_is_measured_where_it_is_not_there(
    script, tiny_checkpoint, photograph, tmp_path, measured
):
    photograph(80, 60).save(tmp_path / "1.png")
    for everything in (False, True, True, False):
        script.compare(
            [tmp_path / "1.png"], str(tiny_checkpoint), [3.0], "sga,adagrad,fast", everything=everything, out=tmp_path
        )
    assert [(cell.method, everything) for cell, everything in measured] == [
        ("none", False), ("sga", False), ("adagrad", False), ("fast", False), ("sga", True), ("fast", True),
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "refiners.csv").open()))
    kinds = [(row["method"], row["everything"]) for row in rows]
    assert kinds[4:] == [("sga", "1"), ("fast", "1")] and len(set(kinds)) == len(kinds) == 6


def test_a_plot_is_of_these_weights_and_lengths_alone(
    script, tiny_checkpoint, photograph, tmp_path, measured, monkeypatch
):
    plotted = []
    monkeypatch.setattr(script, "plot", lambda rows, path: plotted.append(rows))
    photograph(80, 60).save(tmp_path / "1.png")
    for most_steps in (100, 2000):
        script.compare([tmp_path / "1.png"], str(tiny_checkpoint), [3.0], "sga", most_steps=most_steps, out=tmp_path)
    assert [[row.most_steps for row in rows] for rows in plotted] == [[100, 100], [2000, 2000]]


def test_networks_for_ms_ssim_are_compared_by_squared_error_like_the_others(
    script, codec, photograph, cell, monkeypatch
):
    monkeypatch.setattr(codec.model, "metric", "ms-ssim")
    monkeypatch.setitem(script.LATENTS, "fast", ((FlipSymbols(2),),))
    picture = load_picture(photograph(161, 161))
    *_, row = script.measure(codec, picture, cell("fast"), everything=True)
    assert row.J == codec.compress(picture, 3.0, effort="fast", metric="mse").J
