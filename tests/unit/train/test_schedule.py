from __future__ import annotations

import math

import pytest

from tto.train.recipe import ModelSettings, Recipe, ScheduleSettings, StageSettings
from tto.train.schedule import StageLength, learning_rate_factor, stage_length


def recipe(minutes: float | None, *stages: StageSettings) -> Recipe:
    return Recipe(model=ModelSettings(name="dcae"), stages=stages, minutes=minutes)


def test_epochs_become_steps():
    stage = StageSettings(name="a", crop=64, batch=16, epochs=80)
    assert stage_length(recipe(None, stage), stage, 300_000) == StageLength(1_500_000, math.inf)


def test_minutes_are_divided_by_share():
    stages = [StageSettings(name=n, crop=64, batch=1, share=s) for n, s in (("a", 0.6), ("b", 0.2))]
    assert stage_length(recipe(8, *stages), stages[0], 1) == StageLength(math.inf, 360.0)


def test_minutes_are_divided_by_steps_where_no_share_is_given():
    stages = [StageSettings(name="a", crop=64, batch=2, epochs=3), StageSettings(name="b", crop=64, batch=1, steps=5)]
    assert stage_length(recipe(1, *stages), stages[0], 10) == StageLength(15, 45.0)


def test_progress_is_the_further_of_steps_and_time():
    length = StageLength(100, 60.0)
    assert length.progress(50, 6.0) == 0.5
    assert length.progress(50, 48.0) == 0.8
    assert length.progress(101, 0.0) == 1.0


@pytest.mark.parametrize(
    ("step", "progress", "factor"), [(0, 0.0, 0.1), (9, 0.1, 1.0), (50, 0.6, 1.0), (80, 0.8, 0.5), (99, 1.0, 0.0)]
)
def test_learning_rate_warms_up_stays_and_decays_to_zero(step, progress, factor):
    settings = ScheduleSettings(warmup_steps=10, decay=0.4)
    assert learning_rate_factor(settings, step, progress) == pytest.approx(factor)


def test_constant_schedule_is_constant():
    assert [learning_rate_factor(ScheduleSettings(), step, p) for step, p in ((0, 0.0), (5, 0.99))] == [1.0, 1.0]
