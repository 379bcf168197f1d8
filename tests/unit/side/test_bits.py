"""Adaptive bit models."""

from __future__ import annotations

from tto.side.bits import BitModel


def test_probabilities_stay_within_their_range():
    model = BitModel(9)
    assert model.level(0) == 2048
    model.counts[0] = [10**9, 0]
    assert model.level(0) == 1
    model.counts[0] = [0, 10**9]
    assert model.level(0) == 4095
