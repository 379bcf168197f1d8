from __future__ import annotations

import pytest

from tto.errors import BadArgument
from tto.refine.plan import Pace, Plan, Wish, make_plan, stages_for
from tto.refine.presets import EFFORTS, Filter, FlipSymbols, ModuleOperation, steps_of


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 20, 21, 70, 100, 196, 400])
@pytest.mark.parametrize("has_side", [False, True])
def test_any_number_of_steps_is_met_exactly(steps, has_side):
    assert steps_of(stages_for(steps, has_side)) == steps


def test_no_steps_are_no_stages():
    assert stages_for(0, True) == ()


def test_each_effort_begins_with_the_one_below():
    efforts = list(EFFORTS.values())
    for lower, higher in zip(efforts, efforts[1:], strict=False):
        assert higher[: len(lower)] == lower
        assert steps_of(higher) > steps_of(lower)


@pytest.mark.parametrize("effort", EFFORTS)
def test_an_efforts_own_number_of_steps_gives_its_own_stages(effort):
    assert stages_for(steps_of(EFFORTS[effort]), True) == EFFORTS[effort]


@pytest.mark.parametrize(
    "wish",
    [
        {"effort": "most"},
        {"steps": -1},
        {"budget": 0},
        {"budget": float("nan")},
        {"steps": 3, "budget": 2},
        {"effort": "fast", "steps": 3},
        {"effort": "fast", "budget": 3},
    ],
)
def test_wishes_without_meaning_are_refused(wish):
    with pytest.raises(BadArgument):
        Wish(**wish)


def test_a_model_without_side_modules_has_no_steps_for_them(problem, side_problem, latents):
    bare, full = (make_plan(Wish("best"), p, *latents, seconds_left=0) for p in (problem, side_problem))
    assert full.stages == EFFORTS["best"]
    assert bare.stages == (*full.stages[:-1], (Filter(), FlipSymbols(20), Filter(), FlipSymbols(10)))
    assert make_plan(Wish("balanced"), problem, *latents, 0).stages == EFFORTS["balanced"]
    longest = [steps_of(stages_for(1000, has_modules)) for has_modules in (False, True)]
    assert longest == [1000, 1000]
    assert not any(isinstance(op, ModuleOperation) for stage in stages_for(1000, False) for op in stage)


def test_a_budget_that_is_used_up_leaves_nothing_to_do(problem, latents):
    assert make_plan(Wish(budget=1), problem, *latents, seconds_left=-0.5) == Plan(())


def test_a_budget_is_shared_by_the_clock(problem, latents):
    plan = make_plan(Wish(budget=100), problem, *latents, seconds_left=50.0)
    assert 0 < plan.seconds < 50
    assert plan.steps > 0


def test_pace_by_steps_goes_from_zero_to_one():
    pace = Pace(3, None)
    assert [pace.done() for _ in range(4)] == [0, 0.5, 1, None]


def test_pace_by_the_clock_ends(monkeypatch):
    now = iter([10.0, 10.0, 11.0, 11.5, 12.5])
    monkeypatch.setattr("tto.refine.plan.time.monotonic", lambda: next(now))
    pace = Pace(100, 2.0)
    assert [pace.done() for _ in range(4)] == [0, 0.5, 0.75, None]
