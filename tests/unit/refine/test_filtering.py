"""The filter's least squares are right, rounding pays, and a filter that does not pay is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tto.container import SectionType
from tto.padding import to_tensor
from tto.refine.distortion import SquaredError
from tto.refine.filtering import FilterMoments, fit_filter, fit_levels, level_bits, moments_of
from tto.side.filter import CLASSES, RINGS, ROWS, TAPS, FilterLevels, apply_filter, encode_filter
from tto.side.side import Side
from tto.side.transform import Syntax, Transform


def always(best) -> bool:
    return True


@pytest.fixture
def filtered(problem, photograph):
    """A problem whose picture is nowhere near black or white, and that picture blurred."""
    original = np.asarray(photograph(problem.width, problem.height)).clip(30, 225)
    blurred = to_tensor(original)
    for shift in ((0, 1), (1, 0)):
        blurred = (blurred + blurred.roll(shift, (2, 3))) / 2
    return replace(problem, lambda_=1.0, distortion=SquaredError(original)), blurred


def error_of(problem, x_hat, coefficients) -> float:
    return float(problem.distortion(apply_filter(x_hat, torch.as_tensor(coefficients).to(x_hat))))


def quadratic(moments: FilterMoments, c: np.ndarray) -> float:
    return float(np.einsum("rs,rst,rt->", c, moments.squares, c) - 2 * (moments.products * c).sum())


def test_moments_know_the_error_of_every_filter_of_luma(filtered):
    problem, x_hat = filtered
    moments = moments_of(problem, x_hat)
    base = error_of(problem, x_hat, np.zeros((ROWS, len(TAPS))))
    coefficients = np.random.default_rng(0).normal(0, 0.02, (ROWS, len(TAPS)))
    coefficients[CLASSES] = 0
    change = error_of(problem, x_hat, coefficients) - base
    assert quadratic(moments, coefficients) == pytest.approx(change, rel=1e-3)


def test_moments_of_chroma_are_after_the_best_luma(filtered):
    problem, x_hat = filtered
    moments = moments_of(problem, x_hat)
    best = moments.best()
    with_chroma, without = best.copy(), best.copy()
    with_chroma[CLASSES], without[CLASSES] = 0.01, 0
    change = error_of(problem, x_hat, with_chroma) - error_of(problem, x_hat, without)
    only = np.zeros_like(best)
    only[CLASSES] = 0.01
    assert quadratic(moments, only) == pytest.approx(change, rel=1e-3)


def test_the_best_filter_is_better_than_none_and_than_its_neighbours(filtered):
    problem, x_hat = filtered
    best = moments_of(problem, x_hat).best()
    error = error_of(problem, x_hat, best)
    assert error < 0.8 * error_of(problem, x_hat, 0 * best)
    for scale in (0.9, 1.1):
        assert error < error_of(problem, x_hat, scale * best)


def test_moments_know_the_weighted_error(filtered):
    problem, x_hat = filtered
    weights = np.random.default_rng(1).uniform(0, 2, problem.distortion.original.shape[:2])
    weighted = replace(problem, distortion=SquaredError(problem.distortion.original, weights / weights.mean()))
    coefficients = np.random.default_rng(0).normal(0, 0.02, (ROWS, len(TAPS)))
    coefficients[CLASSES] = 0
    change = error_of(weighted, x_hat, coefficients) - error_of(weighted, x_hat, 0 * coefficients)
    assert quadratic(moments_of(weighted, x_hat), coefficients) == pytest.approx(change, rel=1e-3)


def test_clamped_values_ask_for_nothing(filtered):
    problem, x_hat = filtered
    assert not moments_of(problem, torch.full_like(x_hat, 1.2)).squares.any()


def test_a_transform_is_taken_off_the_error(filtered):
    problem, x_hat = filtered
    K = 0.1 * torch.eye(3, dtype=torch.float64)[None]
    shifted = replace(problem, side=Side((Transform(b"any", Syntax((0,) * 9, 4), K),)))
    assert not np.allclose(moments_of(shifted, x_hat).products, moments_of(problem, x_hat).products)
    undone = moments_of(shifted, x_hat / 1.1)
    assert np.allclose(undone.products[:CLASSES] * 1.1, moments_of(problem, x_hat).products[:CLASSES], rtol=0.3, atol=1)


def test_levels_cost_about_what_the_section_takes():
    random = np.random.default_rng(3)
    for spread in (0.3, 1.0, 4.0):
        levels = np.round(random.normal(0, spread, (ROWS, len(TAPS)))).astype(int)
        costs = level_bits(levels)
        estimate = sum(
            costs[int(row == CLASSES), RINGS[tap], abs(levels[row, tap])] for row, tap in np.ndindex(levels.shape)
        )
        section = 8 * len(encode_filter(FilterLevels(tuple(map(tuple, levels.tolist())), 7), RINGS))
        assert estimate == pytest.approx(section, rel=0.25, abs=80)


def test_levels_lower_the_cost_and_are_few_where_distortion_weighs_little(filtered):
    problem, x_hat = filtered
    moments = moments_of(problem, x_hat)
    nonzero = []
    for lambda_ in (10.0, 0.1, 1e-6):
        weighed = replace(problem, lambda_=lambda_)
        found = fit_levels(weighed, moments)
        nonzero.append(np.count_nonzero(found.levels))
        if lambda_ > 1:
            gained = quadratic(moments, found.coefficients.double().numpy())
            assert gained < 0.9 * quadratic(moments, moments.best())
    assert nonzero[0] > nonzero[1] > nonzero[2] == 0


def test_a_filter_that_pays_is_kept_and_one_that_does_not_is_not(problem, latents):
    heard = []
    eager = replace(problem, lambda_=problem.lambda_ * 1e4)
    start = eager.candidate(*latents, 128)
    found = fit_filter(eager, start, lambda best: heard.append(best.J) or True)
    assert found.J < start.J and set(found.side.sections) == {SectionType.FILTER}
    assert len(heard) == 2
    again = replace(eager, side=found.side).candidate(found.y, found.z, 128)
    assert pytest.approx(found.J, rel=1e-5) == again.J
    cheap = replace(problem, lambda_=problem.lambda_ * 1e-3)
    start = cheap.candidate(*latents, 128)
    assert fit_filter(cheap, start, always) is start


def test_a_filter_that_stopped_paying_is_taken_off(problem, latents, side_of):
    useless = side_of(problem.side_coder, levels=FilterLevels(((20,) * len(TAPS),) * ROWS, 5))
    burdened = replace(problem, side=useless, lambda_=problem.lambda_ * 1e-3)
    start = burdened.candidate(*latents, 128)
    found = fit_filter(burdened, start, always)
    assert found.J < start.J
    assert not found.side.sections
