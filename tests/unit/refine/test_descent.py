"""Gradient descent lowers J, keeps what was best, and leaves the weights alone."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tto.refine.descent import Phase
from tto.refine.flips import FlipSymbols
from tto.refine.operation import run_all
from tto.refine.problem import evaluate_alone
from tto.refine.rate import gaussian_bits
from tto.refine.relaxations import SGA, SoftRounding, StraightThrough
from tto.refine.schedules import Constant, Cosine, Linear

DESCENT = Phase(6, SoftRounding(), Cosine(0.1, 0.01), Constant(0.4))
SETTLING = Phase(2, StraightThrough(), Constant(0.01), rate=gaussian_bits)


def judged_again(problem, found):
    return replace(problem, side=found.side).candidate(found.y, found.z, found.qp)


def test_descent_lowers_the_estimate_and_the_file_follows(problem, latents, tiny_codec, picture, run):
    base = problem.candidate(*latents, 128)
    best = run(problem, latents, (DESCENT, SETTLING)).candidates[-1]
    assert best.J < 0.99 * base.J
    # The codec's own walk in float64 gives back these very symbols: packing twice changes nothing.
    packed = tiny_codec.pack(picture, best.y, best.z, 4.0, best.qp, side=best.side)
    assert pytest.approx(best.J, rel=1e-5) == judged_again(problem, best).J
    real = problem.distortion.of_pixels(tiny_codec.pixels(packed.y_hat, 4.0, problem.frame, best.side))
    assert real == pytest.approx(best.distortion, rel=1e-3)


def test_absurd_step_sizes_leave_the_unrefined_latents(problem, latents, no_filter, run):
    wild = Phase(3, StraightThrough(), Constant(1000.0))
    base = problem.candidate(*latents, 128)
    assert pytest.approx(base.J, rel=1e-6) == run(problem, latents, (wild,)).candidates[-1].J


def test_same_run_gives_the_same_latents(problem, latents, run):
    noisy = (Phase(3, SGA(), Constant(0.05), Constant(0.3)),)
    first, second = (run(problem, latents, noisy).candidates[-1] for _ in range(2))
    assert torch.equal(first.y, second.y)
    assert torch.equal(first.z, second.z)


def test_weights_get_no_gradients_and_inputs_stay(problem, latents, run):
    before = [latent.clone() for latent in latents]
    run(problem, latents, (DESCENT,))
    assert all(parameter.grad is None for parameter in problem.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, latents, strict=True))


def test_phase_moves_both_latents(problem, latents, start):
    state = start(problem, latents, DESCENT)
    run_all((DESCENT,), state)
    assert not torch.equal(state.y, latents[0]) and not torch.equal(state.z, latents[1])


def test_gradients_in_bfloat16_lead_down_and_candidates_are_still_exact(problem, latents, run):
    rough = replace(problem, bfloat16=True)
    best = run(rough, latents, (DESCENT, SETTLING, FlipSymbols(4))).candidates[-1]
    assert best.J < 0.99 * problem.candidate(*latents, 128).J
    assert pytest.approx(best.J, rel=1e-5) == judged_again(problem, best).J


def test_weight_of_the_rate_is_in_what_is_descended_on_and_not_in_what_is_judged(problem, latents, start):
    """Bits 100 and λ·D 2 per pixel, times the pixels."""
    relaxed = replace(DESCENT, rate_weight=Linear(0.5, 1.0))
    outcome = SimpleNamespace(bits=100.0, distortion=2 / problem.lambda_)
    losses = [relaxed.loss(problem, outcome, done) for done in (0.0, 0.5, 1.0)]
    assert losses == pytest.approx([weight + 2 * problem.pixels for weight in (50, 75, 100)])
    assert DESCENT.loss(problem, outcome, 0.0) == problem.cost(outcome) * problem.pixels
    state = start(problem, latents, relaxed)
    run_all((relaxed,), state)
    assert pytest.approx(problem.candidate(state.y, state.z, state.qp).J) == state.latest.J


def test_a_low_weight_of_the_rate_ends_with_more_bits(problem, latents, start):
    found = []
    for weight in (0.2, 1.0):
        phase = replace(DESCENT, rate_weight=Constant(weight))
        state = start(problem, latents, phase)
        run_all((phase,), state)
        found.append(state.latest.bits)
    assert found[0] > found[1]


def test_a_hard_phase_keeps_what_a_later_step_loses(problem, latents, no_filter, run):
    base = problem.candidate(*latents, 128)
    lost = Phase(6, StraightThrough(), lambda done: 0.05 if done < 0.6 else 1000.0)
    assert run(problem, latents, (lost,)).candidates[-1].J < base.J


def test_what_a_step_gave_is_gone_before_the_next(problem, latents, start):
    pictures = []

    def evaluate(evaluation):
        assert all(picture() is None for picture in pictures)
        evaluated = evaluate_alone(evaluation)
        if evaluation.loss is not None:
            pictures.append(weakref.ref(evaluated.outcome.x_hat))
        return evaluated

    run_all((DESCENT,), start(replace(problem, evaluate=evaluate), latents, DESCENT))
    assert len(pictures) == DESCENT.steps
