"""A budget is shared out by steps or by the clock."""

from __future__ import annotations

from tto.refine.budget import Budget
from tto.refine.state import Callbacks, State


def test_a_share_by_steps_goes_from_zero_to_one():
    share = Budget(3).share(3)
    assert [share.done() for _ in range(4)] == [0, 0.5, 1, None]


def test_a_share_by_the_clock_ends(monkeypatch):
    now = iter([10.0, 10.0, 11.0, 11.5, 12.5])
    monkeypatch.setattr("tto.refine.budget.time.monotonic", lambda: next(now))
    share = Budget(400, 8.0).share(100)
    assert [share.done() for _ in range(4)] == [0, 0.5, 0.75, None]


def test_a_refinement_is_over_when_its_seconds_are(problem, latents, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tto.refine.state.time.monotonic", lambda: now[0])
    y, z = latents
    limited = State(problem, y, z, 128, Budget(400, 8.0), Callbacks())
    unlimited = State(problem, y, z, 128, Budget(400), Callbacks())
    now[0] = 107.9
    assert not limited.is_over()
    now[0] = 108.0
    assert limited.is_over() and not unlimited.is_over()
