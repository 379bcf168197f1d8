from __future__ import annotations

import pytest

from tto.refine.schedules import Constant, Cosine, Geometric, Linear


@pytest.mark.parametrize("schedule", [Linear(4, 1), Geometric(4, 1), Cosine(4, 1)])
def test_schedules_begin_and_end_where_they_say(schedule):
    assert schedule(0) == pytest.approx(4)
    assert schedule(1) == pytest.approx(1)


def test_middles():
    assert Constant(3)(0.5) == 3
    assert Linear(4, 1)(0.25) == pytest.approx(3.25)
    assert Geometric(4, 1)(0.5) == pytest.approx(2)
    assert Cosine(4, 1)(0.5) == pytest.approx(2.5)
