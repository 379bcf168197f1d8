"""Adaptive bit models."""

from __future__ import annotations

import pytest

from tto.errors import CorruptFile, WrongLength
from tto.side.bits import BitModel, read_exponent


def test_probabilities_stay_within_their_range():
    model = BitModel(9)
    assert model.level(0) == 2048
    model.counts[0] = [10**9, 0]
    assert model.level(0) == 1
    model.counts[0] = [0, 10**9]
    assert model.level(0) == 4095


def test_exponents_beyond_their_range_and_empty_sections_are_refused():
    assert read_exponent(b"\x0f\xff", "section odd") == 15
    with pytest.raises(CorruptFile, match="section odd: exponent 16"):
        read_exponent(b"\x10", "section odd")
    with pytest.raises(WrongLength, match="section odd: it is empty"):
        read_exponent(b"", "section odd")
