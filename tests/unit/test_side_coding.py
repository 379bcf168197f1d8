"""Mask, codes, syntax and filter to bytes and back, by integers alone."""

from __future__ import annotations

import numpy as np
import pytest

from tto.errors import CorruptFile
from tto.side_coding import (
    NO_CODE,
    BitModel,
    FilterLevels,
    Syntax,
    decode_codes,
    decode_filter,
    decode_mask,
    decode_syntax,
    encode_codes,
    encode_filter,
    encode_syntax,
    mask_context,
    mask_contexts,
)

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


def test_probabilities_stay_within_their_range():
    model = BitModel(9)
    assert model.level(0) == 2048
    model.counts[0] = [10**9, 0]
    assert model.level(0) == 1
    model.counts[0] = [0, 10**9]
    assert model.level(0) == 4095


def test_a_mask_that_is_off_everywhere_is_refused():
    data = encode_codes(np.full((4, 4), NO_CODE), EVEN)
    with pytest.raises(CorruptFile, match="section compensation: the mask is off"):
        decode_codes(data, (4, 4), EVEN)


@pytest.mark.parametrize("scale", [0, 0.5, 5, 127])
def test_syntax_round_trips(scale):
    random = np.random.default_rng(1)
    for exponent in range(16):
        levels = tuple(int(level) for level in np.clip(random.normal(0, scale, 9), -127, 127).round())
        syntax = Syntax(levels, exponent)
        assert decode_syntax(encode_syntax(syntax)) == syntax


def test_a_usual_syntax_takes_few_bytes():
    assert encode_syntax(Syntax((1, -2, 3, 0, 0, 1, 4, -3, 2), 4)).hex() == "4197813cdc"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\xff", "ends inside"),
        (b"\x00\x00", "ends inside"),
        (b"\x0f\x00\x00", "Rice parameter 15"),
        (b"\x00\x00\x01", "something follows"),
        (b"\x00\x00\x00\x00", "something follows"),
        (b"\x00" + b"\xff" * 40 + b"\x00" * 2, "out of range"),
    ],
)
def test_damaged_syntax_is_refused(data, reason):
    with pytest.raises(CorruptFile, match=f"section syntax: .*{reason}"):
        decode_syntax(data)


RINGS = (1, 0, 1, 0)


def some_levels(scale: float, rows=5, seed=0) -> tuple[tuple[int, ...], ...]:
    levels = np.random.default_rng(seed).normal(0, scale, (rows, len(RINGS)))
    return tuple(tuple(row) for row in np.clip(levels.round(), -127, 127).astype(int).tolist())


@pytest.mark.parametrize("scale", [0.5, 3, 40, 1000])
@pytest.mark.parametrize("exponent", [0, 7, 15])
def test_filter_round_trips(scale, exponent):
    found = FilterLevels(some_levels(scale), exponent)
    assert decode_filter(encode_filter(found, RINGS), 5, RINGS) == found


def test_filter_bytes_are_these_everywhere():
    assert encode_filter(FilterLevels(((0, 3, 0, -1), (0, 2, 0, 0), (1, 0, 0, 0)), 6), RINGS).hex() == "0600442b71"


def test_zeros_of_a_filter_cost_little():
    sparse = np.zeros((16, len(RINGS)), int)
    sparse[3, 1] = 2
    assert len(encode_filter(FilterLevels(tuple(map(tuple, sparse.tolist())), 6), RINGS)) <= 5


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "it is empty"), (b"\x10\x00", "exponent 16"), (b"\x06", "the filter does nothing")]
)
def test_damaged_filter_is_refused(data, reason):
    with pytest.raises(CorruptFile, match=f"section filter: .*{reason}"):
        decode_filter(data, 5, RINGS)
