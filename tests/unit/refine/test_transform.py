"""The colour transform: its closed form is right, it pays or is left out, and gray pictures have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tto.padding import to_tensor
from tto.refine.distortion import SquaredError
from tto.refine.transform import fit_syntax, fit_transform, moments_of
from tto.side.codes import NO_CODE
from tto.side.compensation import Compensation
from tto.side.transform import Syntax, Transform, TransformCoder, apply_transform

MATRIX = torch.tensor([[[0.02, -0.01, 0.0], [0.03, 0.01, -0.02], [0.0, 0.0, -0.04]]], dtype=torch.float64)
ZERO = Syntax((0,) * 9, 4)


def always(best) -> bool:
    return True


@pytest.fixture
def tinted(side_problem):
    """A problem whose picture is nowhere near black or white, and the picture with its colours off by a matrix."""
    original = side_problem.distortion.original.clip(20, 235)
    inverse = torch.linalg.inv(torch.eye(3) + MATRIX[0]) - torch.eye(3)
    problem = replace(side_problem, lambda_=1.0, distortion=SquaredError(original))
    return problem, apply_transform(to_tensor(original).double(), inverse[None])


def squared_error(problem, x_hat) -> float:
    return float(problem.distortion(x_hat))


def test_moments_know_the_error_of_every_matrix(tinted):
    problem, x_hat = tinted
    moments = moments_of(problem, x_hat)
    for K in (MATRIX, 0.3 * MATRIX.flip(1)):
        change = squared_error(problem, apply_transform(x_hat, K)) - squared_error(problem, x_hat)
        assert float(moments.change(K)) == pytest.approx(change, rel=1e-6)


def test_weights_count_in_the_moments(tinted):
    problem, x_hat = tinted
    weights = np.random.default_rng(0).uniform(0, 2, problem.distortion.original.shape[:2])
    weighted = replace(problem, distortion=SquaredError(problem.distortion.original, weights / weights.mean()))
    change = squared_error(weighted, apply_transform(x_hat, MATRIX)) - squared_error(weighted, x_hat)
    assert float(moments_of(weighted, x_hat).change(MATRIX)) == pytest.approx(change, rel=1e-6)


def test_the_best_matrix_undoes_the_tint(tinted):
    assert torch.allclose(moments_of(*tinted).best_matrix(), MATRIX, atol=1e-6)


def test_clamped_values_ask_for_nothing(tinted):
    problem, x_hat = tinted
    assert not moments_of(problem, torch.full_like(x_hat, 1.2)).squares.any()


def test_a_fitted_syntax_comes_near_the_best_matrix(tinted):
    """As far as an untrained decoder can: nearer than with a syntax of zeros."""
    problem, x_hat = tinted
    moments = moments_of(problem, x_hat)
    fitted, zero = (problem.side_coder[TransformCoder].make(s).matrix for s in (fit_syntax(problem, moments), ZERO))
    assert float(moments.change(fitted)) < 0.9 * float(moments.change(zero))


def test_a_transform_that_pays_lowers_the_real_cost(tinted, latents):
    problem, _ = tinted
    start = problem.candidate(*latents, 128)
    found = fit_transform(problem, start, always)
    assert found.J < start.J
    assert found.side.get(Transform) is not None
    again = replace(problem, side=found.side).candidate(*latents, 128)
    assert pytest.approx(found.J, rel=1e-6) == again.J


def test_a_transform_that_does_not_pay_is_dropped(tinted, latents, side_of):
    problem = replace(tinted[0], lambda_=1e-7)
    burdened = replace(problem, side=side_of(problem.side_coder, syntax=ZERO))
    found = fit_transform(burdened, burdened.candidate(*latents, 128), always)
    assert found.side.get(Transform) is None


def test_codes_in_place_stay(tinted, latents, side_of):
    problem, _ = tinted
    codes = np.full(latents[0].shape[-2:], NO_CODE)
    codes[1, 1] = 3
    with_codes = replace(problem, side=side_of(problem.side_coder, codes))
    found = fit_transform(with_codes, with_codes.candidate(*latents, 128), always)
    assert np.array_equal(found.side.get(Compensation).codes, codes)


def test_gray_pictures_have_none(tinted, latents):
    gray = replace(tinted[0], grayscale=True)
    start = gray.candidate(*latents, 128)
    assert fit_transform(gray, start, always) is start
