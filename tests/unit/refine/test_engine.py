"""The loop lowers J, never loses the best, stops when asked, and leaves the weights alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tto.container import SectionType, read
from tto.refine import engine
from tto.refine.engine import Descent, Watch, refine
from tto.refine.plan import Plan
from tto.refine.presets import EFFORTS, AnnealSymbols, ChooseStep, Compensate, Filter, FlipSymbols, Phase, Transform
from tto.refine.rate import gaussian_bits
from tto.refine.relaxations import SGA, SoftRounding, StraightThrough
from tto.refine.schedules import Constant, Cosine, StepDown

DESCENT = Phase(6, SoftRounding(), Cosine(0.1, 0.01), Constant(0.4))
SETTLING = Phase(2, StraightThrough(), Constant(0.01), rate=gaussian_bits)


def run(problem, latents, *stages, qp=128, **watch):
    return refine(problem, *latents, qp, Plan(stages), Watch(**watch))


def test_descent_lowers_the_estimate_and_the_file_follows(problem, latents, tiny_codec, picture):
    base = problem.candidate(*latents, 128)
    best = run(problem, latents, (DESCENT, SETTLING)).candidates[-1]
    assert best.J < 0.99 * base.J
    # The codec's own walk in float64 gives back these very symbols: packing twice changes nothing.
    data, y_hat = tiny_codec._pack(picture, best.y, best.z, 4.0, best.qp, False, best.side)
    assert pytest.approx(best.J, rel=1e-5) == judged_again(problem, best).J
    real = problem.distortion.of_pixels(tiny_codec.synthesise(y_hat, _header(data), best.side))
    assert real == pytest.approx(best.distortion, rel=1e-3)


def _header(data):
    from tto.container import read

    return read(data).header


def judged_again(problem, found):
    return replace(problem, side=found.side).candidate(found.y, found.z, found.qp)


@pytest.fixture
def no_filter(monkeypatch):
    """Stages end without a filter."""
    monkeypatch.setattr(engine, "fit_filter", lambda problem, best, keep_on: best)


def test_every_stage_has_a_candidate_and_they_never_get_worse(problem, latents, no_filter):
    found = run(problem, latents, (SETTLING,), (DESCENT,), (SETTLING,)).candidates
    costs = [candidate.J for candidate in found]
    assert len(costs) == 3
    assert costs == sorted(costs, reverse=True)


def test_every_stage_ends_with_a_filter_that_the_next_does_not_see(problem, latents):
    eager = replace(problem, lambda_=1.0)
    descent = Descent(eager, *latents, 128, Plan(((DESCENT,),)), Watch())
    descent.do(DESCENT)
    best = descent.best
    finished = descent.finished()
    assert finished.J < best.J
    assert set(finished.side.sections) == {SectionType.FILTER}
    assert descent.best is best
    assert not descent.problem.side.sections
    descent.do(Filter())
    assert descent.finished() is descent.best


def test_rate_weight_weighs_the_rate_in_the_gradient_alone(problem, latents):
    descent = Descent(problem, *latents, 128, Plan(((DESCENT,),)), Watch())
    y, z = (latent.requires_grad_(True) for latent in (descent.y, descent.z))
    gradients = []
    for weight in (0.0, 0.5, 1.0):
        descent.differentiate(replace(DESCENT, rate_weight=Constant(weight)), 0.0, y, z)
        gradients.append(y.grad)
    torch.testing.assert_close(gradients[1], (gradients[0] + gradients[2]) / 2, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(gradients[0], gradients[2], rtol=1e-3, atol=1e-3)


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


@pytest.mark.parametrize(("moved", "kept"), [("y", "z"), ("z", "y")])
def test_only_the_latents_of_a_phase_move(problem, latents, moved, kept):
    descent = Descent(problem, *latents, 128, Plan(()), Watch())
    before = {name: getattr(descent, name).clone() for name in "yz"}
    descent.do(replace(DESCENT, latents=(moved,)))
    assert torch.equal(getattr(descent, kept), before[kept])
    assert not torch.equal(getattr(descent, moved), before[moved])


def test_looks_find_what_a_later_step_loses(problem, latents, no_filter):
    """A soft phase that first descends and then jumps away ends worse than it once was."""
    lost = replace(DESCENT, steps=8, step_size=StepDown(0.1, at=0.6, factor=1e4))
    costs = [run(problem, latents, (replace(lost, look_every=n),)).candidates[-1].J for n in (None, 2)]
    base = problem.candidate(*latents, 128).J
    assert costs[1] < 0.99 * base < costs[0] == pytest.approx(base)


def test_patience_ends_a_phase(problem, latents):
    """Step sizes that are far too large never find anything better than the start."""
    wild = replace(DESCENT, steps=20, step_size=Constant(1000.0), look_every=2)
    assert run(problem, latents, (wild,)).steps == 20
    assert run(problem, latents, (replace(wild, patience=3),)).steps == 6
    hard = Phase(20, StraightThrough(), Constant(1000.0), patience=3)
    assert run(problem, latents, (hard,)).steps <= 4  # the start itself may be better in its last digit


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
    descent = Descent(problem, *latents, 20, Plan((stage,)), Watch())
    descent.do(stage[0])
    assert descent.qp == descent.best.qp == descent.latest.qp > 20
    descent.do(stage[1])
    assert descent.latest.qp == descent.qp


def test_annealing_counts_its_steps_and_flips_go_on_from_where_it_ends(problem, latents):
    stage = (AnnealSymbols(5), FlipSymbols(4))
    descent = Descent(problem, *latents, 128, Plan((stage,)), Watch())
    descent.do(stage[0])
    assert descent.steps == 5
    annealed = descent.latest
    assert descent.base_J > annealed.J
    descent.do(stage[1])
    assert descent.best.J < annealed.J
    assert descent.latest is descent.best


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


def test_padding_costs_nothing(problem, latents, picture):
    outcome = problem.judge(*latents, 128)
    assert outcome.x_hat.shape[-2:] == (picture.height, picture.width)
    assert np.isfinite(float(outcome.distortion))


def test_gradients_in_bfloat16_lead_down_and_candidates_are_still_exact(problem, latents):
    rough = replace(problem, bfloat16=True)
    best = run(rough, latents, (DESCENT, SETTLING, FlipSymbols(4))).candidates[-1]
    assert best.J < 0.99 * problem.candidate(*latents, 128).J
    assert pytest.approx(best.J, rel=1e-5) == judged_again(problem, best).J


def test_side_information_goes_on_from_the_best_and_reaches_the_file(side_problem, latents, tiny_codec, picture):
    from dataclasses import replace

    costly = replace(side_problem, lambda_=1.0)  # distortion is worth any number of bits
    stages = ((SETTLING,), (Compensate(4), SETTLING, Compensate(3), Transform()))
    seen = []
    before, after = run(costly, latents, *stages, on_progress=seen.append).candidates
    assert after.J < before.J
    assert {SectionType.COMPENSATION, SectionType.SYNTAX} <= set(after.side.sections)
    assert set(before.side.sections) == {SectionType.FILTER}
    assert len(seen) <= 13
    assert pytest.approx(after.J, rel=1e-5) == judged_again(costly, after).J


def test_effort_best_with_side_modules_is_decoded_as_judged(tiny_codec, make_side_modules, photograph, monkeypatch):
    from tto.codec import Codec

    stages = ((SETTLING,), (Compensate(4), Transform()))
    monkeypatch.setitem(EFFORTS, "best", stages)
    codec = Codec(tiny_codec.model, "cpu", make_side_modules(tiny_codec.model.config.M))
    result = codec.compress(photograph(70, 50), 4, effort="best", lambda_=1.0)
    assert SectionType.COMPENSATION in read(result.data).sections
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    assert result.base_J > result.J
