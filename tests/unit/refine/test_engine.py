"""The loop lowers J, never loses the best, stops when asked, and leaves the weights alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tto.container import SectionType, read
from tto.refine import engine
from tto.refine.compensation import ChooseCodes
from tto.refine.descent import Phase
from tto.refine.engine import refine
from tto.refine.filtering import FitFilter, finished
from tto.refine.flips import AnnealSymbols, FlipSymbols
from tto.refine.operation import run_all
from tto.refine.plan import Plan
from tto.refine.presets import EFFORTS
from tto.refine.quantization_step import ChooseStep
from tto.refine.rate import gaussian_bits
from tto.refine.relaxations import SGA, SoftRounding, StraightThrough
from tto.refine.schedules import Constant, Cosine
from tto.refine.state import Callbacks, State
from tto.refine.transform import FitTransform

DESCENT = Phase(6, SoftRounding(), Cosine(0.1, 0.01), Constant(0.4))
SETTLING = Phase(2, StraightThrough(), Constant(0.01), rate=gaussian_bits)


def run(problem, latents, *stages, qp=128, **callbacks):
    return refine(problem, *latents, qp, Plan(stages), Callbacks(**callbacks))


def start(problem, latents, *operations, qp=128) -> State:
    """The state before these operations."""
    return State(problem, *latents, qp, Plan((operations,)).budget, Callbacks())


def test_descent_lowers_the_estimate_and_the_file_follows(problem, latents, tiny_codec, picture):
    base = problem.candidate(*latents, 128)
    best = run(problem, latents, (DESCENT, SETTLING)).candidates[-1]
    assert best.J < 0.99 * base.J
    # The codec's own walk in float64 gives back these very symbols: packing twice changes nothing.
    packed = tiny_codec.pack(picture, best.y, best.z, 4.0, best.qp, side=best.side)
    assert pytest.approx(best.J, rel=1e-5) == judged_again(problem, best).J
    real = problem.distortion.of_pixels(tiny_codec.pixels(packed.y_hat, 4.0, problem.frame, best.side))
    assert real == pytest.approx(best.distortion, rel=1e-3)


def judged_again(problem, found):
    return replace(problem, side=found.side).candidate(found.y, found.z, found.qp)


@pytest.fixture
def no_filter(monkeypatch):
    """Stages end without a filter."""
    monkeypatch.setattr(engine, "finished", lambda problem, best: best)


def test_every_stage_has_a_candidate_and_they_never_get_worse(problem, latents, no_filter):
    found = run(problem, latents, (SETTLING,), (DESCENT,), (SETTLING,)).candidates
    costs = [candidate.J for candidate in found]
    assert len(costs) == 3
    assert costs == sorted(costs, reverse=True)


def test_every_stage_ends_with_a_filter_that_the_next_does_not_see(problem, latents):
    state = start(replace(problem, lambda_=1.0), latents, DESCENT)
    run_all((DESCENT,), state)
    best = state.best
    last = finished(state.problem, best)
    assert last.J < best.J
    assert set(last.side.sections) == {SectionType.FILTER}
    assert state.best is best
    assert not state.problem.side.sections
    run_all((FitFilter(),), state)
    assert finished(state.problem, state.best) is state.best


def test_absurd_step_sizes_leave_the_unrefined_latents(problem, latents, no_filter):
    wild = Phase(3, StraightThrough(), Constant(1000.0))
    base = problem.candidate(*latents, 128)
    assert pytest.approx(base.J, rel=1e-6) == run(problem, latents, (wild,)).candidates[-1].J


def test_same_run_gives_the_same_latents(problem, latents):
    noisy = (Phase(3, SGA(), Constant(0.05), Constant(0.3)),)
    first, second = (run(problem, latents, noisy).candidates[-1] for _ in range(2))
    assert torch.equal(first.y, second.y)
    assert torch.equal(first.z, second.z)


def test_weights_get_no_gradients_and_inputs_stay(problem, latents):
    before = [latent.clone() for latent in latents]
    run(problem, latents, (DESCENT,))
    assert all(parameter.grad is None for parameter in problem.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, latents, strict=True))


def test_stopping_ends_before_the_next_step_and_keeps_the_best(problem, latents):
    seen = []
    done = run(problem, latents, (DESCENT,), (DESCENT,), on_progress=seen.append, should_stop=lambda: len(seen) == 3)
    assert done.steps == 3
    assert len(done.candidates) == 1
    assert done.candidates[0].J <= problem.candidate(*latents, 128).J


def test_progress_counts_steps_and_its_cost_never_rises(problem, latents):
    seen = []
    run(problem, latents, (DESCENT, SETTLING), on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 9))
    assert {progress.steps for progress in seen} == {8}
    costs = [progress.J for progress in seen]
    assert costs == sorted(costs, reverse=True)
    assert seen[-1].seconds_left == 0


def test_phase_moves_both_latents(problem, latents):
    state = start(problem, latents, DESCENT)
    run_all((DESCENT,), state)
    assert not torch.equal(state.y, latents[0]) and not torch.equal(state.z, latents[1])


def test_choosing_the_step_tries_both_directions(problem, latents):
    tried = ChooseStep(offset=4, tries=2, operations=(SETTLING,))
    assert run(problem, latents, (tried,)).steps == 4 == tried.steps
    coarse = run(problem, latents, (tried,), qp=60).candidates[-1]  # far too fine a step to begin with
    assert coarse.qp > 60


def test_qp_stays_in_its_byte(problem, latents):
    assert run(problem, latents, (ChooseStep(9, 2, (SETTLING,)),), qp=254).candidates[-1].qp <= 255


def test_after_choosing_the_step_descent_goes_on_at_the_best_one(problem, latents):
    """With one try upwards from the finest step, which pays, and one more, of which nothing is said."""
    stage = (ChooseStep(offset=40, tries=2, operations=(SETTLING,)), SETTLING)
    state = start(problem, latents, *stage, qp=20)
    run_all(stage[:1], state)
    assert state.qp == state.best.qp == state.latest.qp > 20
    run_all(stage[1:], state)
    assert state.latest.qp == state.qp


def test_annealing_counts_its_steps_and_flips_go_on_from_where_it_ends(problem, latents):
    stage = (AnnealSymbols(5), FlipSymbols(4))
    state = start(problem, latents, *stage)
    run_all(stage[:1], state)
    assert state.steps == 5
    annealed = state.latest
    assert state.base_J > annealed.J
    run_all(stage[1:], state)
    assert state.best.J < annealed.J
    assert state.latest is state.best


def test_flips_never_raise_the_cost_and_respect_their_steps(problem, latents):
    base = problem.candidate(*latents, 128)
    seen = []
    found = run(problem, latents, (FlipSymbols(12),), on_progress=seen.append).candidates[-1]
    assert found.J < base.J
    assert len(seen) <= 12


def test_refinement_of_a_gray_picture_sees_gray_pixels(problem, latents):
    gray = replace(problem, grayscale=True)
    outcome = gray.judge(*latents, 128)
    assert torch.equal(outcome.x_hat[:, 0], outcome.x_hat[:, 2])


def test_padding_costs_no_distortion(problem, latents):
    outcome = problem.judge(*latents, 128)
    inside = problem.distortion.original.astype(float)
    levels = 255 * outcome.x_hat[0].permute(1, 2, 0).double().numpy()
    assert levels.shape == inside.shape
    assert float(outcome.distortion) == pytest.approx(((levels - inside) ** 2).mean(), rel=1e-4)


def test_gradients_in_bfloat16_lead_down_and_candidates_are_still_exact(problem, latents):
    rough = replace(problem, bfloat16=True)
    best = run(rough, latents, (DESCENT, SETTLING, FlipSymbols(4))).candidates[-1]
    assert best.J < 0.99 * problem.candidate(*latents, 128).J
    assert pytest.approx(best.J, rel=1e-5) == judged_again(problem, best).J


def test_side_information_goes_on_from_the_best_and_reaches_the_file(side_problem, latents, tiny_codec, picture):
    from dataclasses import replace

    costly = replace(side_problem, lambda_=1.0)  # distortion is worth any number of bits
    stages = ((SETTLING,), (ChooseCodes(4), SETTLING, ChooseCodes(3), FitTransform()))
    seen = []
    before, after = run(costly, latents, *stages, on_progress=seen.append).candidates
    assert after.J < before.J
    assert {SectionType.COMPENSATION, SectionType.SYNTAX} <= set(after.side.sections)
    assert set(before.side.sections) == {SectionType.FILTER}
    assert len(seen) <= 13
    assert pytest.approx(after.J, rel=1e-5) == judged_again(costly, after).J


def test_effort_best_with_side_modules_is_decoded_as_judged(tiny_codec, make_side_modules, photograph, monkeypatch):
    from tto.codec import Codec

    stages = ((SETTLING,), (ChooseCodes(4), FitTransform()))
    monkeypatch.setitem(EFFORTS, "best", stages)
    codec = Codec(tiny_codec.model, "cpu", make_side_modules(tiny_codec.model.config.M))
    result = codec.compress(photograph(70, 50), 4, effort="best", lambda_=1.0)
    assert SectionType.COMPENSATION in read(result.data).sections
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    assert result.base_J > result.J
