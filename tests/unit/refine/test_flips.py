from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tto.refine.distortion import SquaredError
from tto.refine.flips import Symbols, at_symbols, least_of_each_slice, predict, symbols_of


def test_symbols_give_the_candidate_back(problem, latents):
    candidate = problem.candidate(*latents, 131)
    symbols = symbols_of(problem, candidate)
    assert torch.equal(symbols.y, symbols.y.round())
    with torch.no_grad():
        again = problem.candidate_of(at_symbols(problem, symbols, 131), 131)
    assert abs(again.J - candidate.J) < 1e-6 * candidate.J


def test_own_bits_are_predicted_exactly(problem, latents):
    """In the last slice, on which no other depends, and where distortion weighs nothing, that is all there is."""
    only_rate = replace(problem, lambda_=1e-12)
    symbols = symbols_of(problem, problem.candidate(*latents, 128))
    moves, predicted = predict(only_rate, symbols, 128)
    assert set(moves.unique().tolist()) <= {-1.0, 1.0}
    with torch.no_grad():
        before = at_symbols(only_rate, symbols, 128).bits
        for position in (-1, -9, -30):
            y = symbols.y.flatten().clone()
            y[position] += moves.flatten()[position]
            change = at_symbols(only_rate, Symbols(y.view_as(symbols.y), symbols.z), 128).bits - before
            assert float(change) == pytest.approx(float(predicted.flatten()[position]), abs=0.01)


def test_curvature_adds_to_the_prediction(problem, latents):
    symbols = symbols_of(problem, problem.candidate(*latents, 128))
    predicted = predict(problem, symbols, 128)[1]
    flat = SquaredErrorWithoutCurvature(problem.distortion.original)
    without = predict(replace(problem, distortion=flat), symbols, 128)[1]
    assert (predicted >= without - 1e-3).all()
    assert (predicted > without + 1e-3).any()


def test_one_flip_of_each_position_and_slice_is_left():
    predicted = torch.tensor([[3.0, -1.0], [-2.0, -4.0], [5.0, 6.0], [-7.0, 0.5]]).view(1, 4, 1, 2)
    left = least_of_each_slice(predicted, 2)
    inf = torch.inf
    assert left.view(4, 2).tolist() == [[inf, inf], [-2.0, -4.0], [inf, inf], [-7.0, 0.5]]


class SquaredErrorWithoutCurvature(SquaredError):
    def curvature(self, x_hat):
        return 0.0
