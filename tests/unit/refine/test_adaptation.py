"""The search for a picture's own weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tto.codec import Codec
from tto.container import SectionType, read
from tto.refine.adaptation import GROUPS, JUDGING, FitAdaptation
from tto.refine.presets import EFFORTS
from tto.side.adaptation import Adaptation

SEARCH = FitAdaptation(20 + JUDGING)


@pytest.fixture(scope="module")
def found(tiny_codec, problem, latents):
    """At a λ that gives a little picture the bits for it."""
    wanted = replace(problem, lambda_=2.0)
    before = wanted.candidate(*latents, 128)
    return wanted, before, SEARCH.search(wanted, before, lambda best: True)


def test_it_lowers_the_cost_and_counts_its_own_bits(found):
    wanted, before, after = found
    assert after.J < before.J
    section = after.side.sections[SectionType.ADAPTATION]
    assert 20 < len(section) < 2000
    judged = replace(wanted, side=after.side).candidate(after.y, after.z, after.qp)
    assert pytest.approx(after.J, rel=1e-5) == judged.J


def test_where_it_does_not_pay_nothing_changes(problem, latents):
    cheap = replace(problem, lambda_=1e-6)
    before = cheap.candidate(*latents, 128)
    assert SEARCH.search(cheap, before, lambda best: True) is before


def test_it_ends_when_told_to(problem, latents):
    before, calls = problem.candidate(*latents, 128), []
    assert SEARCH.search(problem, before, lambda best: calls.append(best) or len(calls) < 3) is before
    assert len(calls) == 3


def test_it_ends_while_it_judges(problem, latents):
    wanted, calls = replace(problem, lambda_=2.0), []
    before = wanted.candidate(*latents, 128)
    SEARCH.search(wanted, before, lambda best: calls.append(best) or len(calls) < 22)
    assert len(calls) == 22
    calls.clear()
    SEARCH.search(wanted, before, lambda best: calls.append(best) or True)
    assert 22 < len(calls) <= SEARCH.steps and len(wanted.model.last_weights()) <= GROUPS


def test_a_file_has_it_and_decodes(tiny_codec, photograph, monkeypatch):
    codec = Codec(tiny_codec.model, device="cpu")
    monkeypatch.setitem(EFFORTS, "max", ((SEARCH,),))
    result = codec.compress(photograph(70, 50), effort="max", lambda_=2.0)
    contents = read(result.data)
    assert codec.read_side(contents).get(Adaptation) is not None and result.base_J > result.J
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    again = codec.compress(Image.new("RGB", (70, 50), (90, 120, 60)), effort="none")
    assert np.array_equal(np.asarray(codec.decompress(again.data)), np.asarray(again.image))
