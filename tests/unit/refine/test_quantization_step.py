"""The quantization step of a picture is moved while that pays."""

from __future__ import annotations

import pytest

from tto.refine.descent import Phase
from tto.refine.operation import run_all
from tto.refine.quantization_step import ChooseStep
from tto.refine.rate import gaussian_bits
from tto.refine.relaxations import StraightThrough
from tto.refine.schedules import Constant
from tto.refine.state import State

SETTLING = Phase(2, StraightThrough(), Constant(0.01), rate=gaussian_bits)


def test_choosing_the_step_tries_both_directions(problem, latents, run):
    tried = ChooseStep(offset=4, tries=2, operations=(SETTLING,))
    assert run(problem, latents, (tried,)).steps == 4 == tried.steps
    coarse = run(problem, latents, (tried,), qp=60).candidates[-1]  # far too fine a step to begin with
    assert coarse.qp > 60


def test_a_step_that_is_too_coarse_becomes_finer(problem, latents, run):
    assert run(problem, latents, (ChooseStep(16, 2, (SETTLING,)),), qp=240).candidates[-1].qp == 224


@pytest.mark.parametrize(("qp", "ends"), [(254, (255, 245)), (3, (12, 0))])
def test_qp_stays_in_its_byte(problem, latents, start, monkeypatch, qp, ends):
    """Upwards and, as if that had not paid, downwards."""
    tried = []
    monkeypatch.setattr(State, "go_on_from", lambda state, candidate, qp: tried.append(qp))
    stage = ChooseStep(9, 2, ())
    stage.run(start(problem, latents, stage, qp=qp))
    assert tried == [*ends, qp]


def test_after_choosing_the_step_descent_goes_on_at_the_best_one(problem, latents, start):
    """With one try upwards from the finest step, which pays, and one more, of which nothing is said."""
    stage = (ChooseStep(offset=40, tries=2, operations=(SETTLING,)), SETTLING)
    state = start(problem, latents, *stage, qp=20)
    run_all(stage[:1], state)
    assert state.qp == state.best.qp == state.latest.qp > 20
    run_all(stage[1:], state)
    assert state.latest.qp == state.qp
