"""The search for a picture's own weights."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tto.codec import Codec
from tto.container import SectionType, read
from tto.refine.adaptation import GROUPS, JUDGING, FitAdaptation
from tto.refine.budget import Budget
from tto.refine.plan import Plan
from tto.refine.presets import EFFORTS
from tto.refine.state import Callbacks, State
from tto.side.adaptation import Adaptation
from tto.side.side import NO_SIDE

SEARCH = FitAdaptation(20 + JUDGING)


def state_before(problem, latents, **callbacks) -> State:
    return State(problem, *latents, 128, Plan(((SEARCH,),)).budget, Callbacks(**callbacks))


@pytest.fixture(scope="module")
def found(tiny_codec, problem, latents):
    """At a λ that gives a little picture the bits for it."""
    state = state_before(replace(problem, lambda_=2.0), latents)
    before = state.best
    SEARCH.run(state)
    return state, before


def test_it_lowers_the_cost_and_counts_its_own_bits(found):
    state, before = found
    after = state.best
    assert after.J < before.J
    assert state.problem.side is after.side and state.steps <= SEARCH.steps
    assert len(state.problem.model.last_weights()) <= GROUPS
    section = after.side.sections[SectionType.ADAPTATION]
    assert 20 < len(section) < 2000
    judged = state.problem.candidate(after.y, after.z, after.qp)
    assert pytest.approx(after.J, rel=1e-5) == judged.J


def test_layers_that_stay_are_computed_once(found, latents, monkeypatch):
    """And what is found is what is found over tiles, where they are not."""
    state, before = found
    first = state.problem.model.g_s[0]
    calls, forward = [], first.forward
    monkeypatch.setattr(first, "forward", lambda x: calls.append(x.shape) or forward(x))
    again = state_before(replace(state.problem, side=NO_SIDE), latents)
    calls.clear()
    SEARCH.run(again)
    assert again.best.J == state.best.J
    assert len(calls) <= 4  # once, and the candidate that the next operation begins with


def test_where_it_does_not_pay_nothing_changes(problem, latents):
    state = state_before(replace(problem, lambda_=1e-6), latents)
    before = state.best
    SEARCH.run(state)
    assert state.best is before


def test_it_ends_when_told_to(problem, latents):
    asked = []
    state = state_before(problem, latents, should_stop=lambda: asked.append(1) or len(asked) > 3)
    before = state.best
    SEARCH.run(state)
    assert state.best is before and state.steps == 3


def test_by_the_clock_its_descent_leaves_time_to_judge(problem, latents, monkeypatch):
    seconds = iter(range(10**6))
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    state = State(replace(problem, lambda_=2.0), *latents, 128, Budget(SEARCH.steps, 60.0), Callbacks())
    monkeypatch.setattr("tto.refine.budget.time", clock)
    before = state.best
    SEARCH.run(state)
    assert state.steps < SEARCH.steps
    assert state.best.J < before.J and Adaptation in map(type, state.best.side.parts)


def test_fewer_steps_than_it_takes_to_judge_are_left_to_others():
    assert SEARCH.resized(JUDGING) is None and SEARCH.resized(JUDGING + 1).steps == JUDGING + 1


def test_a_file_has_it_and_decodes(tiny_codec, photograph, monkeypatch):
    codec = Codec(tiny_codec.model, device="cpu")
    monkeypatch.setitem(EFFORTS, "max", ((SEARCH,),))
    result = codec.compress(photograph(70, 50), effort="max", lambda_=2.0)
    contents = read(result.data)
    assert codec.read_side(contents).get(Adaptation) is not None and result.base_J > result.J
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    again = codec.compress(Image.new("RGB", (70, 50), (90, 120, 60)), effort="none")
    assert np.array_equal(np.asarray(codec.decompress(again.data)), np.asarray(again.image))
