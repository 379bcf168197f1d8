from __future__ import annotations

import math

import pytest

from tto.refine.schedules import Constant, Cosine, DelayedExponential, Geometric, Linear, StepDown


@pytest.mark.parametrize("schedule", [Linear(4, 1), Geometric(4, 1), Cosine(4, 1)])
def test_schedules_begin_and_end_where_they_say(schedule):
    assert schedule(0) == pytest.approx(4)
    assert schedule(1) == pytest.approx(1)


def test_middles():
    assert Constant(3)(0.5) == 3
    assert Linear(4, 1)(0.5) == pytest.approx(2.5)
    assert Geometric(4, 1)(0.5) == pytest.approx(2)
    assert Cosine(4, 1)(0.5) == pytest.approx(2.5)
    assert [StepDown(2, at=0.8, factor=0.1)(t) for t in (0, 0.79, 0.8, 1)] == pytest.approx([2, 2, 0.2, 0.2])


def test_delayed_exponential_is_the_published_temperature_of_2000_steps():
    schedule = DelayedExponential(0.5, rate=2.0, delay=0.35)
    for step in (0, 699, 700, 1500, 2000):
        assert schedule(step / 2000) == pytest.approx(min(0.5, 0.5 * math.exp(-1e-3 * (step - 700))))
