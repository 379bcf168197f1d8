"""Mask and codes to bytes and back, by integers alone."""

from __future__ import annotations

import numpy as np
import pytest

from tto.errors import CorruptFile
from tto.side.codes import NO_CODE, decode_codes, decode_mask, encode_codes, mask_context, mask_contexts

EVEN = np.full(16, 4096, np.int64)


def some_codes(density: float, size=(12, 20), codes=16, seed=0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.where(random.random(size) < density, random.integers(0, codes, size), NO_CODE)


@pytest.mark.parametrize("density", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("size", [(4, 4), (12, 20), (4, 64)])
def test_codes_round_trip(density, size):
    codes = some_codes(density, size)
    codes[1, 2] = 7
    data = encode_codes(codes, EVEN)
    assert np.array_equal(decode_codes(data, size, EVEN), codes)
    assert np.array_equal(decode_mask(data, size), codes != NO_CODE)


def test_bytes_are_these_everywhere():
    codes = np.full((4, 4), NO_CODE)
    codes[1, 1:3] = 5, 9
    assert encode_codes(codes, EVEN).hex() == "73e6693c"


def test_a_sparse_mask_costs_its_entropy():
    codes = some_codes(0.02, (64, 64))
    on = int((codes != NO_CODE).sum())
    entropy = -on * np.log2(on / 4096) - (4096 - on) * np.log2(1 - on / 4096)
    assert 8 * len(encode_codes(codes, EVEN)) < entropy + 4 * on + 80


def test_a_blob_costs_less_than_the_same_number_of_scattered_positions():
    blob = np.full((32, 32), NO_CODE)
    blob[8:20, 8:20] = 3
    scattered = np.random.default_rng(0).permutation(blob.ravel()).reshape(32, 32)
    assert len(encode_codes(blob, EVEN)) < 0.7 * len(encode_codes(scattered, EVEN))


def test_frequent_codes_are_cheap():
    skewed = np.array([1, 65536 - 15, *[1] * 14])
    codes = np.ones((16, 16), np.int64)
    assert len(encode_codes(codes, skewed)) < len(encode_codes(codes, EVEN)) - 120


def test_contexts_of_a_whole_mask_are_those_of_its_positions():
    mask = some_codes(0.4) != NO_CODE
    padded = np.pad(mask, ((1, 0), (1, 1)))
    contexts = mask_contexts(mask)
    for row, column in np.ndindex(mask.shape):
        left, above = padded[row + 1, column], padded[row]
        neighbours = (left, above[column + 1], above[column], above[column + 2])
        assert contexts[row, column] == mask_context(*map(bool, neighbours))


def test_a_mask_that_is_off_everywhere_is_refused():
    data = encode_codes(np.full((4, 4), NO_CODE), EVEN)
    with pytest.raises(CorruptFile, match="section compensation: the mask is off"):
        decode_codes(data, (4, 4), EVEN)
