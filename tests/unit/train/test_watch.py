from __future__ import annotations

import math

import pytest

from tto.train.errors import DeadHyperLatent, Diverged
from tto.train.watch import Averages, FiniteWatch, HyperLatentWatch


def test_ten_steps_in_a_row_that_are_not_finite_end_the_run():
    watch = FiniteWatch()
    for step in range(9):
        assert not watch.check(math.nan, 1.0, step)
    assert watch.check(1.0, 1.0, 9)
    for step in range(9):
        assert not watch.check(1.0, math.inf, step)
    with pytest.raises(Diverged, match="step 30: .*not finite 10 times in a row"):
        watch.check(math.nan, 1.0, 30)
    assert watch.skipped == 19


def test_dead_hyper_latent_ends_the_run_after_a_while():
    watch = HyperLatentWatch()
    for _ in range(400):
        watch.check(0.0)
    with pytest.raises(DeadHyperLatent, match="rounds to zero everywhere"):
        watch.check(0.0)


def test_living_hyper_latent_may_be_small():
    watch = HyperLatentWatch()
    for _ in range(1000):
        watch.check(3e-4)


def test_averages_start_anew():
    averages = Averages()
    averages.add({"mse": 0.01, "loss": 1.0})
    averages.add({"mse": 0.01, "loss": 3.0})
    means = averages.take()
    assert (means["loss"], means["psnr"]) == (2.0, pytest.approx(20.0))
    assert set(averages.take()) == {"steps_per_second"}
