"""The comparison of refiners looks at real files, at the steps it says."""

from __future__ import annotations

import csv
import math

import pytest

from tto.codec import Codec
from tto.image import load_picture
from tto.models import load_model


@pytest.fixture
def codec(tiny_checkpoint) -> Codec:
    return Codec(load_model(str(tiny_checkpoint)), "cpu")


def test_rows_are_of_the_best_so_far_after_the_steps_they_name(script, tiny_checkpoint, photograph, tmp_path):
    path = tmp_path / "picture.png"
    photograph(80, 60).save(path)
    script.compare([path], str(tiny_checkpoint), [3.0], "sga,adagrad,fast", crop=48, most_steps=7, out=tmp_path / "out")
    with open(tmp_path / "out" / "refiners.csv") as file:
        rows = list(csv.DictReader(file))
    assert (tmp_path / "out" / "refiners.png").stat().st_size > 1000
    for method in ("sga", "adagrad", "fast"):
        ours = [row for row in rows if row["method"] == method]
        assert [int(row["steps"]) for row in ours] == [1, 2, 5, 7]
        seconds = [float(row["seconds"]) for row in ours]
        assert seconds == sorted(seconds)
        assert all(float(row["change"]) <= 0.5 for row in ours)


def test_latents_alone_are_found_and_priced_without_a_filter(script):
    assert any(isinstance(o, script.SideSearch) for stage in script.METHODS["fast"] for o in stage)
    assert not any(isinstance(o, script.SideSearch) for stages in script.LATENTS.values() for s in stages for o in s)


def test_everything_is_what_a_file_of_that_effort_is(script, codec, photograph):
    picture = load_picture(photograph(80, 60))
    (row,) = script.measure(codec, picture, "p", 3.0, "fast", 2000, everything=True)
    result = codec.compress(picture, 3.0, effort="fast")
    assert (row.bytes, row.J, row.steps) == (len(result.data), result.J, result.steps)


def test_latents_of_others_get_the_same_beside_them(script, codec, photograph, monkeypatch):
    monkeypatch.setattr(script, "LEAST_STEPS", 5)
    picture = load_picture(photograph(80, 60))
    plain = list(script.measure(codec, picture, "p", 3.0, "adagrad", 8))
    full = list(script.measure(codec, picture, "p", 3.0, "adagrad", 8, everything=True))
    assert [row.steps for row in full] == [row.steps for row in plain if row.steps >= 5]
    assert all(a.J <= b.J for a, b in zip(full, plain[-len(full) :], strict=True))


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
