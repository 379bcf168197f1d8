"""The loop never loses the best, stops when asked, and ends every stage with a candidate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tto.container import SectionType, read
from tto.refine.compensation import ChooseCodes
from tto.refine.descent import Phase
from tto.refine.filtering import FitFilter, finished
from tto.refine.operation import run_all
from tto.refine.presets import EFFORTS
from tto.refine.rate import gaussian_bits
from tto.refine.relaxations import SoftRounding, StraightThrough
from tto.refine.schedules import Constant, Cosine
from tto.refine.transform import FitTransform
from tto.side.filter import Filter

DESCENT = Phase(6, SoftRounding(), Cosine(0.1, 0.01), Constant(0.4))
SETTLING = Phase(2, StraightThrough(), Constant(0.01), rate=gaussian_bits)


def judged_again(problem, found):
    return replace(problem, side=found.side).candidate(found.y, found.z, found.qp)


def test_every_stage_has_a_candidate_and_they_never_get_worse(problem, latents, no_filter, run):
    found = run(problem, latents, (SETTLING,), (DESCENT,), (SETTLING,)).candidates
    costs = [candidate.J for candidate in found]
    assert len(costs) == 3
    assert costs == sorted(costs, reverse=True)


def test_every_stage_ends_with_a_filter_that_is_in_force_in_the_next(problem, latents, run, monkeypatch):
    """The second stage begins with the filter that the first ended with, and what it finds is for that."""
    sides = []
    evaluate = Phase.differentiate

    def differentiate(phase, state, *arguments):
        sides.append(state.problem.side)
        return evaluate(phase, state, *arguments)

    monkeypatch.setattr(Phase, "differentiate", differentiate)
    eager = replace(problem, lambda_=1.0)
    first, second = run(eager, latents, (DESCENT,), (SETTLING,)).candidates
    assert set(first.side.sections) == {SectionType.FILTER}
    assert [set(side.sections) for side in sides] == 6 * [set()] + 2 * [{SectionType.FILTER}]
    assert sides[-1] is first.side
    assert second.J <= first.J
    assert pytest.approx(second.J, rel=1e-5) == judged_again(eager, second).J


def test_a_stage_ends_with_its_filter_fitted_anew(problem, latents, start):
    """Here the filter in force was fitted to other latents."""
    y, z = latents
    state = start(replace(problem, lambda_=1.0), (0.7 * y, z), FitFilter())
    run_all((FitFilter(),), state)
    before = state.problem.candidate(y, z, 128)
    last = finished(state.problem, before)
    assert last.J < before.J
    assert last.side.get(Filter).body != before.side.get(Filter).body


def test_a_filter_that_no_longer_pays_is_gone_at_the_end_of_a_stage(problem, latents, start):
    state = start(replace(problem, lambda_=1.0), latents, FitFilter())
    run_all((FitFilter(),), state)
    cheap = replace(state.problem, lambda_=1e-6)
    best = cheap.candidate(state.best.y, state.best.z, state.best.qp)
    assert best.side.get(Filter) is not None
    assert not finished(cheap, best).side.sections


def test_stopping_ends_before_the_next_step_and_keeps_the_best(problem, latents, run):
    seen = []
    done = run(problem, latents, (DESCENT,), (DESCENT,), on_progress=seen.append, should_stop=lambda: len(seen) == 3)
    assert done.steps == 3
    assert len(done.candidates) == 1
    assert done.candidates[0].J <= problem.candidate(*latents, 128).J


def test_progress_counts_steps_and_its_cost_never_rises(problem, latents, run):
    seen = []
    run(problem, latents, (DESCENT, SETTLING), on_progress=seen.append)
    assert [progress.step for progress in seen] == list(range(1, 9))
    assert {progress.steps for progress in seen} == {8}
    costs = [progress.J for progress in seen]
    assert costs == sorted(costs, reverse=True)
    assert seen[-1].seconds_left == 0


def test_side_information_goes_on_from_the_best_and_reaches_the_file(side_problem, latents, tiny_codec, picture, run):
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
