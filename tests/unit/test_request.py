"""What can be asked of a compression."""

from __future__ import annotations

import pytest

from tto.errors import BadArgument
from tto.refine.targets import FIGURES
from tto.request import Request


@pytest.mark.parametrize(
    "asked",
    [
        {"effort": "most"},
        {"steps": -1},
        {"budget": 0},
        {"budget": float("nan")},
        {"steps": 3, "budget": 2},
        {"effort": "fast", "steps": 3},
        {"budget": 3, "target_bpp": 0.5},
        {"effort": "fast", "budget": 3},
        {"lambda_": 0.0},
        {"lambda_": float("inf")},
    ],
)
def test_requests_without_meaning_are_refused(asked):
    with pytest.raises(BadArgument):
        Request(**asked)


@pytest.mark.parametrize(
    ("asked", "refines"), [({}, False), ({"steps": 0}, False), ({"steps": 1}, True), ({"budget": 1.0}, True)]
)
def test_it_says_whether_there_is_refinement(asked, refines):
    assert Request(**asked).refines is refines
    assert Request(effort="fast").refines


def test_what_only_refinement_can_do_asks_for_it():
    assert Request().chosen_effort == "none"
    assert Request(metric="ms-ssim").chosen_effort == Request(roi="mask.png").chosen_effort == "fast"
    assert Request(metric="ms-ssim", steps=3).chosen_effort == "none"
    with pytest.raises(BadArgument, match="refines nothing"):
        Request(effort="none", roi="mask.png")


def test_every_figure_can_be_a_target():
    assert Request(target_psnr=30.0).targets == {name: 30.0 if name == "psnr" else None for name in FIGURES}
