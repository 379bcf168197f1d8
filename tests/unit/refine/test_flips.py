from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tto.refine import flips
from tto.refine.distortion import SquaredError
from tto.refine.flips import (
    AnnealSymbols,
    FlipSymbols,
    Symbols,
    anneal_symbols,
    candidate_at,
    least_of_each_part,
    predict,
    symbols_of,
)
from tto.refine.operation import run_all
from tto.refine.schedules import Constant, Geometric


def test_symbols_give_the_candidate_back(problem, latents):
    candidate = problem.candidate(*latents, 131)
    symbols = symbols_of(problem, candidate)
    assert torch.equal(symbols.y, symbols.y.round())
    again = candidate_at(problem, symbols, 131)
    assert abs(again.J - candidate.J) < 1e-6 * candidate.J


def test_a_candidate_knows_what_an_evaluation_of_it_would_tell(problem, latents):
    candidate = problem.candidate(*latents, 131)
    outcome = problem.judge(candidate.y, candidate.z, 131)
    assert torch.equal(candidate.symbols, problem.y_symbols(outcome, 131))
    assert torch.equal(candidate.y_hat, outcome.y_hat)
    assert candidate.bits == float(outcome.bits)


def test_own_bits_are_predicted_exactly(problem, latents):
    """In the last slice, on which no other depends, and where distortion weighs nothing, that is all there is."""
    only_rate = replace(problem, lambda_=1e-12)
    symbols = symbols_of(problem, problem.candidate(*latents, 128))
    moves, predicted, _ = predict(only_rate, symbols, 128)
    assert set(moves.unique().tolist()) <= {-1.0, 1.0}
    before = candidate_at(only_rate, symbols, 128).bpp
    for position in (-1, -9, -30):
        y = symbols.y.flatten().clone()
        y[position] += moves.flatten()[position]
        after = candidate_at(only_rate, Symbols(y.view_as(symbols.y), symbols.z), 128).bpp
        change = (after - before) * problem.pixels
        assert change == pytest.approx(float(predicted.flatten()[position]), abs=0.01)


def test_curvature_adds_to_the_prediction(problem, latents):
    symbols = symbols_of(problem, problem.candidate(*latents, 128))
    predicted = predict(problem, symbols, 128).change
    flat = SquaredErrorWithoutCurvature(problem.distortion.original)
    without = predict(replace(problem, distortion=flat), symbols, 128).change
    assert (predicted >= without - 1e-3).all()
    assert (predicted > without + 1e-3).any()


def test_one_flip_of_each_position_and_part_is_left():
    two_slices = SimpleNamespace(split_y=lambda y: y.chunk(2, 1), join_y=lambda parts, size: torch.cat(parts, 1))
    predicted = torch.tensor([[3.0, -1.0], [-2.0, -4.0], [5.0, 6.0], [-7.0, 0.5]]).view(1, 4, 1, 2)
    left = least_of_each_part(predicted, two_slices)
    inf = torch.inf
    assert left.view(4, 2).tolist() == [[inf, inf], [-2.0, -4.0], [inf, inf], [-7.0, 0.5]]


def test_earlier_curvature_gives_the_same_prediction(problem, latents):
    symbols = symbols_of(problem, problem.candidate(*latents, 128))
    first = predict(problem, symbols, 128)
    again = predict(problem, symbols, 128, first.curvature)
    assert torch.equal(first.moves, again.moves)
    assert torch.allclose(first.change, again.change)


def anneal(problem, candidate, temperature, steps, seed=0):
    parts = [step / (steps - 1) for step in range(steps)]
    return anneal_symbols(problem, candidate, temperature, parts, torch.Generator().manual_seed(seed))


def test_annealing_goes_down_and_further_where_it_is_cold(problem, latents):
    """Where rate alone counts, of which predictions are good even for an untrained network."""
    only_rate = replace(problem, lambda_=1e-12)
    candidate = only_rate.candidate(*latents, 128)
    cold, hot = (anneal(only_rate, candidate, Constant(temperature), 12) for temperature in (0.1, 1e4))
    assert cold.J < 0.95 * candidate.J
    assert cold.J < 0.98 * hot.J


def test_annealing_is_repeatable_and_random(problem, latents):
    candidate = problem.candidate(*latents, 128)
    first, same, other = (anneal(problem, candidate, Constant(1.0), 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first.y, same.y)
    assert not torch.equal(first.y, other.y)


def test_annealing_ends_with_whole_symbols_and_leaves_z(problem, latents):
    candidate = problem.candidate(*latents, 131)
    found = anneal(problem, candidate, Geometric(2.0, 0.1), 4)
    symbols = symbols_of(problem, found)
    assert torch.equal(found.z, candidate.z)
    assert pytest.approx(found.J, rel=1e-6) == candidate_at(problem, symbols, 131).J


class SquaredErrorWithoutCurvature(SquaredError):
    def curvature(self, x_hat):
        return 0.0


def test_annealing_counts_its_steps_and_flips_go_on_from_where_it_ends(problem, latents, start):
    stage = (AnnealSymbols(5), FlipSymbols(4))
    state = start(problem, latents, *stage)
    run_all(stage[:1], state)
    assert state.steps == 5
    annealed = state.latest
    assert state.base_J > annealed.J
    run_all(stage[1:], state)
    assert state.best.J < annealed.J
    assert state.latest is state.best


def test_nothing_is_predicted_that_cannot_be_tried(problem, latents, start, monkeypatch):
    done, predict = [], flips.predict
    monkeypatch.setattr(flips, "predict", lambda *given: done.append("predicted") or predict(*given))
    candidate_at = flips.candidate_at
    monkeypatch.setattr(flips, "candidate_at", lambda *given: done.append("tried") or candidate_at(*given))
    for steps in range(1, 7):
        done.clear()
        run_all((FlipSymbols(steps),), start(problem, latents, FlipSymbols(steps)))
        assert len(done) <= steps
        assert steps == 1 or done[-1] == "tried"


def test_latents_stay_in_the_layout_that_is_fast(problem, latents, start):
    state = start(problem, latents, AnnealSymbols(2), FlipSymbols(6))
    run_all((AnnealSymbols(2), FlipSymbols(6)), state)
    symbols = state.latest.symbols
    assert symbols.is_contiguous(memory_format=torch.channels_last)
    state.go_on_with_side()
    assert state.y.is_contiguous(memory_format=torch.channels_last)
    assert state.latest.y.is_contiguous(memory_format=torch.channels_last)


def test_flips_estimate_curvature_once(problem, latents, monkeypatch):
    asked, predict = [], flips.predict

    def watched(problem, symbols, qp, curvature=None):
        asked.append(curvature is None)
        return predict(problem, symbols, qp, curvature)

    monkeypatch.setattr(flips, "predict", watched)
    flips.flip_symbols(problem, problem.candidate(*latents, 128), lambda best: 2 * (len(asked) < 3))
    assert asked == [True, False, False]


def test_flips_never_raise_the_cost_and_respect_their_steps(problem, latents, run):
    base = problem.candidate(*latents, 128)
    seen = []
    found = run(problem, latents, (FlipSymbols(12),), on_progress=seen.append).candidates[-1]
    assert found.J < base.J
    assert len(seen) <= 12
