"""Each stand-in for rounding has the values and limits of its formula."""

from __future__ import annotations

import math

import pytest
import torch

from tto.refine.relaxations import (
    SGA,
    DeterministicAnnealing,
    SGAPlusSSL,
    SoftRounding,
    StraightThrough,
    UniformNoise,
)

U = torch.tensor([-1.7, -0.5001, -0.2, 0.0, 0.3, 0.9, 1.4, 2.0], dtype=torch.float64)
AWAY_FROM_HALVES = torch.tensor([-1.8, -0.2, 0.0, 0.3, 0.9, 1.1, 2.0], dtype=torch.float64)


def relaxed(relaxation, temperature, u=U):
    return relaxation(u, temperature, torch.Generator().manual_seed(1))


def test_straight_through_rounds_and_passes_gradients():
    u = U.clone().requires_grad_(True)
    out = relaxed(StraightThrough(), 1.0, u)
    assert torch.equal(out.detach(), U.round())
    assert torch.equal(torch.autograd.grad(out.sum(), u)[0], torch.ones_like(U))


def test_uniform_noise_stays_within_half_a_step():
    difference = relaxed(UniformNoise(), 1.0, U.repeat(1000)) - U.repeat(1000)
    assert -0.5 <= difference.min() < -0.49
    assert 0.49 < difference.max() < 0.5


def test_soft_rounding_is_its_formula():
    alpha, u = 1 / 0.4, 0.3
    expected = 0.5 + math.tanh(alpha * (u - 0.5)) / (2 * math.tanh(alpha / 2))
    assert float(relaxed(SoftRounding(), 0.4, torch.tensor(u))) == pytest.approx(expected)


def test_soft_rounding_keeps_integers_and_halves_at_every_temperature():
    fixed = torch.tensor([-2.0, -0.5, 0.0, 0.5, 3.0])
    for temperature in (0.1, 0.5, 5.0):
        assert torch.allclose(relaxed(SoftRounding(), temperature, fixed), fixed, atol=1e-4)


def test_soft_rounding_goes_from_the_identity_to_rounding():
    assert torch.allclose(relaxed(SoftRounding(), 100.0), U, atol=1e-4)
    assert torch.allclose(relaxed(SoftRounding(), 0.02, AWAY_FROM_HALVES), AWAY_FROM_HALVES.round(), atol=0.02)


@pytest.mark.parametrize("relaxation", [DeterministicAnnealing(), SGA(), SGAPlusSSL()])
def test_annealed_relaxations_end_at_rounding(relaxation):
    assert torch.allclose(relaxed(relaxation, 0.02, AWAY_FROM_HALVES), AWAY_FROM_HALVES.round(), atol=0.02)


def test_sga_rounds_up_as_often_as_its_distribution_says():
    temperature, v = 0.5, 0.6
    samples = relaxed(SGA(), temperature, torch.full((20_000,), v, dtype=torch.float64))
    up = 1 / (1 + math.exp(-(math.atanh(v) - math.atanh(1 - v)) / temperature))
    # The relaxed sample is above one half exactly where a hard one would be 1.
    assert float((samples > 0.5).double().mean()) == pytest.approx(up, abs=0.01)


def test_three_classes_reach_both_neighbours_and_are_symmetric():
    samples = relaxed(SGAPlusSSL(), 0.5, torch.zeros(20_000, dtype=torch.float64))
    assert samples.min() < -0.5
    assert samples.max() > 0.5
    assert float(samples.mean()) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("relaxation", [SoftRounding(), DeterministicAnnealing(), SGA(), SGAPlusSSL(), UniformNoise()])
def test_gradients_are_finite_everywhere(relaxation):
    u = torch.cat([U, torch.tensor([1e-9, 1 - 1e-9, -1e-9, 0.5, 1e4])]).requires_grad_(True)
    (gradient,) = torch.autograd.grad(relaxed(relaxation, 0.3, u).sum(), u)
    assert gradient.isfinite().all()
