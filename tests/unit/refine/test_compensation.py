"""Codes are chosen where they pay: predictions hold, J never rises, and useless codes go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tto.refine.compensation import CodeSearch, choose_codes
from tto.side.coder import SideCoder
from tto.side.codes import NO_CODE
from tto.side.compensation import Compensation, CompensationCoder


@pytest.fixture
def candidate(side_problem, latents):
    return side_problem.candidate(*latents, 128)


@pytest.fixture
def useful(side_problem, latents, candidate):
    """The problem with codes of which four are what quantization took from four positions."""
    outcome = side_problem.judge(candidate.y, candidate.z, 128)
    residual = (latents[0] - outcome.y_hat)[0].flatten(1).T
    changed = SideCoder(side_problem.side_coder.modules)
    vectors = changed[CompensationCoder].compensations.clone()
    vectors[:4] = residual[residual.norm(dim=1).argsort(descending=True)[:4]]
    changed[CompensationCoder].compensations = vectors
    return replace(side_problem, side_coder=changed, lambda_=10.0)


def always(best) -> bool:
    return True


def test_codes_that_help_are_found_and_lower_the_real_cost(useful, candidate):
    start = useful.candidate(candidate.y, candidate.z, 128)
    found = choose_codes(useful, start, always)
    assert found.J < start.J
    assert found.side.bits > 0
    again = replace(useful, side=found.side).candidate(candidate.y, candidate.z, 128)
    assert pytest.approx(found.J, rel=1e-6) == again.J
    assert again.bpp - start.bpp == pytest.approx(found.side.bits / useful.pixels, rel=1e-3)


def test_codes_that_do_not_pay_are_not_there(side_problem, candidate):
    cheap_distortion = replace(side_problem, lambda_=1e-7)
    start = cheap_distortion.candidate(candidate.y, candidate.z, 128)
    assert choose_codes(cheap_distortion, start, always) is start


def test_without_codes_none_is_looked_at_for_removal(side_problem, candidate, monkeypatch):
    asked, run = [], CodeSearch.run
    monkeypatch.setattr(CodeSearch, "run", lambda self, **how: asked.append(how["removals_only"]) or run(self, **how))
    choose_codes(replace(side_problem, lambda_=1e-6), candidate, always)
    assert asked == [False]


def test_useless_codes_are_taken_away(useful, candidate, side_of):
    codes = np.full(candidate.y.shape[-2:], 15)
    burdened = replace(useful, side=side_of(useful.side_coder, codes))
    start = burdened.candidate(candidate.y, candidate.z, 128)
    found = choose_codes(burdened, start, always)
    assert found.J < start.J
    left = found.side.get(Compensation)
    assert left is None or (left.codes == NO_CODE).sum() > codes.size / 2


def test_prediction_for_one_small_code_is_close_to_what_happens(useful, candidate):
    coder = useful.side_coder[CompensationCoder]
    coder.compensations = coder.compensations * 0.1
    start = useful.candidate(candidate.y, candidate.z, 128)
    search = CodeSearch(useful, start)
    landscape = search.landscape()
    position, code = 5, 0
    vector = search.vectors[code]
    predicted = landscape.gradient[position] @ vector + 0.5 * landscape.scale[position] * landscape.gram[code, code]
    codes = np.full(candidate.y.shape[-2:], NO_CODE)
    codes.flat[position] = code
    outcome = useful.judge(candidate.y, candidate.z, 128)
    with_code = replace(useful, side=useful.side.with_(coder.make(codes))).picture(outcome.y_hat)
    weight = useful.lambda_ * useful.pixels
    happened = weight * (useful.distortion(with_code) - useful.distortion(useful.picture(outcome.y_hat)))
    assert float(predicted) == pytest.approx(float(happened), rel=0.3)


def test_stopping_keeps_the_best(useful, candidate):
    start = useful.candidate(candidate.y, candidate.z, 128)
    heard = []

    def twice(best) -> bool:
        heard.append(best.J)
        return len(heard) < 2

    found = choose_codes(useful, start, twice)
    assert len(heard) == 2
    assert min(start.J, *heard) == found.J
