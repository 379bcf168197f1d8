from __future__ import annotations

import math

import pytest

from tto.train.checkpoints import Progress
from tto.train.errors import RecipeError
from tto.train.recipe import ModelSettings, Recipe, ScheduleSettings, StageSettings
from tto.train.schedule import StageLength, decaying, going_on, learning_rate_factor, stage_length


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


def test_run_goes_on_for_the_minutes_asked_for():
    stages = [StageSettings(name=n, crop=64, batch=1, share=s) for n, s in (("a", 0.5), ("b", 0.3), ("c", 0.2))]
    longer = going_on(recipe(10, *stages), 1, Progress("b", stage_seconds=60.0, total_seconds=360.0), 9.0)
    lengths = [stage_length(longer, stage, 1).seconds for stage in stages[1:]]
    assert sum(lengths) - 60.0 == pytest.approx(9 * 60)
    assert lengths[0] / lengths[1] == pytest.approx(0.3 / 0.2)


def test_constant_stage_without_end_goes_on_for_the_minutes_asked_for():
    stage = StageSettings(name="a", crop=64, batch=1, steps=10**6)
    longer = going_on(recipe(None, stage), 1, Progress("a", step=900, stage_seconds=600.0), 60.0)
    assert stage_length(longer, stage, 1).seconds == pytest.approx(600 + 3600)


def test_decay_begins_at_the_peak_and_ends_at_zero_after_its_minutes():
    stages = [StageSettings(name=n, crop=64, batch=1, steps=10**6) for n in "ab"]
    progress = Progress("b", step=900, stage_seconds=600.0, total_seconds=999.0)
    ending = decaying(recipe(None, *stages), progress, 5.0)
    (stage,) = ending.chosen_stages
    length = stage_length(ending, stage, 1)

    def factor(seconds: float) -> float:
        return learning_rate_factor(stage.schedule, 901, length.progress(901, seconds))

    assert stage.name == "b" and ending.stages[0] == stages[0]
    assert [factor(600.0 + t) for t in (0.0, 75.0, 150.0, 300.0)] == pytest.approx([1.0, 0.75, 0.5, 0.0])


def test_stage_that_decays_by_itself_is_not_decayed_again():
    stage = StageSettings(name="a", crop=64, batch=1, share=1.0, schedule=ScheduleSettings(decay=0.9))
    with pytest.raises(RecipeError, match="stage 'a' has a decay of its own"):
        decaying(recipe(1, stage), Progress("a"), 5.0)


def test_little_more_time_than_a_stage_has_used_up_goes_to_the_next():
    stages = [StageSettings(name=n, crop=64, batch=1, share=s) for n, s in (("a", 0.3), ("b", 0.7))]
    progress = Progress("a", step=5, stage_seconds=35 * 60.0, total_seconds=35 * 60.0)
    longer = going_on(recipe(120, *stages), 1, progress, 10.0)
    lengths = [stage_length(longer, stage, 1).seconds / 60 for stage in stages]
    assert lengths[0] < 35 and lengths[1] == pytest.approx(10)


@pytest.mark.parametrize(("limit", "done"), [({"steps": 40}, 40), ({"epochs": 2}, 20)])
def test_time_does_not_add_to_steps_that_are_done(limit, done):
    stage = StageSettings(name="a", crop=64, batch=1, **limit)
    with pytest.raises(RecipeError, match=f"stages.a.{next(iter(limit))}=N goes on"):
        going_on(recipe(None, stage), 10, Progress("a", step=done, stage_seconds=600.0), 60.0)
    assert going_on(recipe(None, stage), 10, Progress("a", step=done - 1, stage_seconds=600.0), 60.0).minutes == 70
