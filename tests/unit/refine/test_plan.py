from __future__ import annotations

import pytest

from tto.refine.filtering import FitFilter
from tto.refine.flips import FlipSymbols
from tto.refine.plan import Plan, make_plan, stages_for
from tto.refine.presets import EFFORTS, steps_of
from tto.request import Request


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 20, 21, 70, 100, 196, 400])
def test_any_number_of_steps_is_met_exactly(steps, problem, side_problem):
    for one in (problem, side_problem):
        assert steps_of(stages_for(steps, one)) == steps


def test_no_steps_are_no_stages(problem):
    assert stages_for(0, problem) == ()


def test_each_effort_begins_with_the_one_below():
    efforts = list(EFFORTS.values())
    for lower, higher in zip(efforts, efforts[1:], strict=False):
        assert higher[: len(lower)] == lower
        assert steps_of(higher) > steps_of(lower)


@pytest.mark.parametrize("effort", EFFORTS)
def test_an_efforts_own_number_of_steps_gives_its_own_stages(effort, side_problem):
    assert stages_for(steps_of(EFFORTS[effort]), side_problem) == EFFORTS[effort]


@pytest.mark.parametrize("steps", [27, 36, 77, 200, 251, 300])
def test_more_steps_than_an_effort_has_begin_with_all_of_it(steps, side_problem):
    stages = stages_for(steps, side_problem)
    whole = [effort for effort in EFFORTS.values() if effort and steps_of(effort) <= steps]
    assert whole and all(stages[: len(effort)] == effort for effort in whole)
    assert steps_of(stages) == steps


def test_a_model_without_side_modules_has_no_steps_for_them(problem, side_problem, latents):
    bare, full = (make_plan(Request(effort="best"), p, *latents, seconds_left=0) for p in (problem, side_problem))
    assert full.stages == EFFORTS["best"]
    assert bare.stages == (*full.stages[:-1], (FlipSymbols(20), FitFilter(), FlipSymbols(10)))
    assert make_plan(Request(effort="balanced"), problem, *latents, 0).stages == EFFORTS["balanced"]
    assert all(operation.possible(problem) for stage in stages_for(1000, problem) for operation in stage)


def test_a_budget_that_is_used_up_leaves_nothing_to_do(problem, latents):
    assert make_plan(Request(budget=1), problem, *latents, seconds_left=-0.5) == Plan(())


def test_a_budget_is_shared_by_the_clock(problem, latents):
    plan = make_plan(Request(budget=100), problem, *latents, seconds_left=50.0, judging=2.0)
    assert 20 < plan.seconds < 50.0 - 2.0 * (len(plan.stages) + 1)
    assert 0 < plan.seconds < 50
    assert plan.budget.steps > 0
    assert plan.budget.seconds == plan.seconds
