from __future__ import annotations

import math
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tto.errors import BadArgument, TargetMissed
from tto.metrics import ms_ssim, ssimulacra2
from tto.refine.targets import FIGURES, make_target, operating_point, search


def attempt(quality, qp):
    """A codec whose log bpp and PSNR bend a little with quality."""
    s = quality + (128 - qp) / 16
    return SimpleNamespace(
        bpp=0.1 * math.exp(0.4 * s - 0.01 * s * s), psnr=25 + 1.5 * s - 0.03 * s * s, at=(quality, qp)
    )


@pytest.fixture(scope="module")
def original(photograph) -> np.ndarray:
    return np.asarray(photograph(192, 176))


def coarsening(original: np.ndarray):
    """A codec that adds noise, which falls with quality."""
    noise = np.random.default_rng(0).normal(0, 1, original.shape)

    def attempt(quality, qp):
        sigma = 24 * math.exp(-0.35 * (quality + (128 - qp) / 16))
        decoded = np.clip(original + sigma * noise, 0, 255).round().astype(np.uint8)
        return SimpleNamespace(bpp=1.0, psnr=30.0, image=Image.fromarray(decoded))

    return attempt


@pytest.mark.parametrize("bpp", [0.06, 0.15, 0.5, 1.0, 2.0])
def test_rate_lands_within_one_percent(bpp, original):
    result, reached = search(attempt, make_target(original, bpp=bpp), 4.0, 8)
    assert result.bpp == reached == pytest.approx(bpp, rel=0.01)


@pytest.mark.parametrize("psnr", [24.0, 27.0, 33.3, 37.0])
def test_psnr_lands_within_a_twentieth_of_a_decibel(psnr, original):
    assert search(attempt, make_target(original, psnr=psnr), 4.0, 8)[0].psnr == pytest.approx(psnr, abs=0.05)


@pytest.mark.parametrize("value", [55.0, 70.0, 85.0])
def test_ssimulacra2_of_the_decoded_picture_lands_within_half_a_point(value, original):
    result, reached = search(coarsening(original), make_target(original, ssimulacra2=value), 4.0, 8)
    assert reached == ssimulacra2(original, np.asarray(result.image)) == pytest.approx(value, abs=0.5)


@pytest.mark.parametrize("value", [0.95, 0.97, 0.998])
def test_ms_ssim_of_the_decoded_picture_lands_within_two_thousandths(value, original):
    result, reached = search(coarsening(original), make_target(original, ms_ssim=value), 4.0, 8)
    assert reached == ms_ssim(original, np.asarray(result.image)) == pytest.approx(value, abs=0.002)


@pytest.mark.parametrize("value", [0.9, 0.97, 0.998])
def test_the_tolerance_of_ms_ssim_is_no_more_than_two_thousandths_either_way(value, original):
    target = make_target(original, ms_ssim=value)
    assert target.miss(value - 0.002) == pytest.approx(-1)
    assert target.miss(min(value + 0.002, 0.99999)) > 1


def test_what_cannot_be_reached_is_said_with_the_nearest(original):
    with pytest.raises(TargetMissed, match=r"no file of 90 dB: the nearest has \d+\.\d+ dB \(.* bpp and \d+\.\d+ dB\)"):
        search(attempt, make_target(original, psnr=90.0), 4.0, 8)


@pytest.mark.parametrize(("psnr", "is_below"), [(90.0, True), (3.0, False)])
def test_a_missed_target_says_on_which_side_it_lies(psnr, is_below, original):
    with pytest.raises(TargetMissed) as missed:
        search(attempt, make_target(original, psnr=psnr), 4.0, 8)
    assert missed.value.is_below is is_below


def test_told_to_stop_the_search_gives_the_nearest_so_far(original):
    asked = iter([False, True])
    tried = []

    def noted(quality, qp):
        tried.append(attempt(quality, qp))
        return tried[-1]

    found, _ = search(noted, make_target(original, psnr=90.0), 4.0, 8, lambda: next(asked))
    assert len(tried) == 2
    assert found is max(tried, key=lambda result: result.psnr)


def test_a_rate_that_jumps_over_the_target_is_missed_not_looped_on(original):
    jumping = lambda q, qp: SimpleNamespace(bpp=1.0 if q > 3.3 else 0.5, psnr=30)  # noqa: E731
    with pytest.raises(TargetMissed):
        search(jumping, make_target(original, bpp=0.7), 4.0, 8)


def test_no_file_is_made_twice_where_few_differ(original):
    """As of a checkpoint of one rate, whose step alone can be chosen."""
    low, high = (attempt(1, qp).bpp for qp in (120, 119))
    for miss in np.linspace(0, 1, 9):
        made = []

        def noted(*at, made=made):
            made.append(at)
            return attempt(*at)

        with suppress(TargetMissed):
            search(noted, make_target(original, bpp=low + miss * (high - low)), 1.0, 1)
        assert {120, 119} & {qp for _, qp in made}
        assert len(made) == len(set(made)) <= 8


def test_an_infinite_figure_is_an_end_like_another(original):
    def flat(quality, qp):
        s = quality + (128 - qp) / 16
        return SimpleNamespace(bpp=1.0, psnr=math.inf if s > 6 else 25 + 2 * s, at=(quality, qp))

    result, reached = search(flat, make_target(original, psnr=35.0), 7.0, 8)
    assert reached == result.psnr == pytest.approx(35, abs=0.05)


def test_beyond_the_qualities_the_step_goes_on():
    assert operating_point(4.25, 8) == (4.25, 128)
    assert operating_point(0.0, 8) == (1.0, 144)
    assert operating_point(9.5, 8) == (8.0, 104)


@pytest.mark.parametrize(
    "targets",
    [
        {"bpp": 1.0, "psnr": 30.0},
        {"bpp": 0.0},
        {"psnr": -3.0},
        {"bpp": float("nan")},
        {"psnr": math.inf},
        {"ms_ssim": 1.0},
        {"ssimulacra2": 100.0},
    ],
)
def test_targets_without_meaning_are_refused(targets, original):
    with pytest.raises(BadArgument):
        make_target(original, **targets)


def test_a_picture_too_small_for_the_figure_is_refused_before_the_search():
    for name, side in (("ms_ssim", 160), ("ssimulacra2", 7)):
        assert FIGURES[name].min_side == side + 1
        with pytest.raises(BadArgument, match=f"at least {side + 1} pixels"):
            make_target(np.zeros((side, 300, 3), np.uint8), **{name: 0.9})


def test_no_target_is_none(original):
    assert make_target(original, bpp=None, psnr=None) is None
