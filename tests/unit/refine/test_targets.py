from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from tto.errors import BadArgument, TargetMissed
from tto.refine.targets import make_target, operating_point, search


def attempt(quality, qp):
    """A codec whose log bpp and PSNR bend a little with quality."""
    s = quality + (128 - qp) / 16
    return SimpleNamespace(
        bpp=0.1 * math.exp(0.4 * s - 0.01 * s * s), psnr=25 + 1.5 * s - 0.03 * s * s, at=(quality, qp)
    )


@pytest.mark.parametrize("bpp", [0.06, 0.15, 0.5, 1.0, 2.0])
def test_rate_lands_within_one_percent(bpp):
    assert search(attempt, make_target(bpp, None), 4.0, 8).bpp == pytest.approx(bpp, rel=0.01)


@pytest.mark.parametrize("psnr", [24.0, 27.0, 33.3, 37.0])
def test_psnr_lands_within_a_twentieth_of_a_decibel(psnr):
    assert search(attempt, make_target(None, psnr), 4.0, 8).psnr == pytest.approx(psnr, abs=0.05)


def test_what_cannot_be_reached_is_said_with_the_nearest():
    with pytest.raises(TargetMissed, match=r"no file of 90 dB: the nearest has .* bpp and \d+\.\d+ dB"):
        search(attempt, make_target(None, 90.0), 4.0, 8)


def test_told_to_stop_the_search_gives_the_nearest_so_far():
    asked = iter([False, True])
    tried = []

    def noted(quality, qp):
        tried.append(attempt(quality, qp))
        return tried[-1]

    found = search(noted, make_target(None, 90.0), 4.0, 8, lambda: next(asked))
    assert len(tried) == 2
    assert found is max(tried, key=lambda result: result.psnr)


def test_a_rate_that_jumps_over_the_target_is_missed_not_looped_on():
    with pytest.raises(TargetMissed):
        search(lambda q, qp: SimpleNamespace(bpp=1.0 if q > 3.3 else 0.5, psnr=30), make_target(0.7, None), 4.0, 8)


def test_beyond_the_qualities_the_step_goes_on():
    assert operating_point(4.25, 8) == (4.25, 128)
    assert operating_point(0.0, 8) == (1.0, 144)
    assert operating_point(9.5, 8) == (8.0, 104)


@pytest.mark.parametrize("targets", [(1.0, 30.0), (0.0, None), (None, -3.0), (float("nan"), None), (None, math.inf)])
def test_targets_without_meaning_are_refused(targets):
    with pytest.raises(BadArgument):
        make_target(*targets)
