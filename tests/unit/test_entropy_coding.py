"""Symbols to bytes and back with integer tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from base_models.entropy_models import GaussianConditional, cell_mass
from tto.entropy_coding import SymbolDecoder, SymbolEncoder, Tables, checksum, scale_indexes
from tto.errors import CorruptFile


def gaussian_tables() -> tuple[Tables, np.ndarray]:
    gaussian = GaussianConditional()
    gaussian.update_tables()
    return Tables.of(gaussian.tables()), gaussian.scale_table.numpy().astype(np.float64)


TABLES, SCALES = gaussian_tables()


def code(symbols: np.ndarray, indexes: np.ndarray) -> bytes:
    encoder = SymbolEncoder()
    encoder.encode(symbols, indexes, TABLES)
    return encoder.data()


def test_known_symbols_give_known_bytes():
    symbols = np.array([0, 1, -1, 3, 0, -7, 2])
    indexes = np.array([0, 10, 10, 30, 0, 40, 20])
    data = code(symbols, indexes)
    assert data.hex() == "2a9076ea"
    assert SymbolDecoder(data, "y").decode(indexes, TABLES).tolist() == symbols.tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**30), 2**30), st.integers(0, 63)), max_size=40), st.integers(0, 2**32 - 1))
def test_any_symbols_in_any_tables_round_trip(extremes, seed):
    random = np.random.default_rng(seed)
    indexes = random.integers(0, 64, 500)
    symbols = np.round(random.normal(0, SCALES[indexes])).astype(np.int64)
    if extremes:
        values, tables = map(np.array, zip(*extremes, strict=True))
        symbols, indexes = np.concatenate([symbols, values]), np.concatenate([indexes, tables])
    decoded = SymbolDecoder(code(symbols, indexes), "y").decode(indexes, TABLES)
    assert np.array_equal(decoded, symbols)


@pytest.mark.parametrize("widened", [1.0, 30.0])
def test_bits_are_what_the_coder_spends(widened):
    """Also with the many escapes that symbols too wide for their tables need."""
    random = np.random.default_rng(5)
    indexes = random.integers(0, 40, 20_000)
    symbols = np.round(random.normal(0, widened * SCALES[indexes])).astype(np.int64)
    assert TABLES.bits(symbols, indexes).sum() == pytest.approx(8 * len(code(symbols, indexes)), rel=1e-3)


def test_size_is_close_to_the_information_in_the_symbols():
    random = np.random.default_rng(3)
    indexes = random.integers(5, 40, 50_000)
    symbols = np.round(random.normal(0, SCALES[indexes])).astype(np.int64)
    values = torch.from_numpy(symbols).float()
    scales = torch.from_numpy(SCALES[indexes]).float()
    ideal_bytes = -cell_mass(values, scales).double().log2().sum().item() / 8
    assert len(code(symbols, indexes)) == pytest.approx(ideal_bytes, rel=2e-3)


def test_groups_of_one_stream_are_decoded_in_order():
    random = np.random.default_rng(4)
    encoder, groups = SymbolEncoder(), []
    for count in (100, 1, 57):
        indexes = random.integers(0, 64, count)
        groups.append((np.round(random.normal(0, SCALES[indexes])).astype(np.int64), indexes))
        encoder.encode(*groups[-1], TABLES)
    decoder = SymbolDecoder(encoder.data(), "y")
    for symbols, indexes in groups:
        assert np.array_equal(decoder.decode(indexes, TABLES), symbols)


def test_garbage_never_does_worse_than_a_typed_error():
    random = np.random.default_rng(5)
    refused = 0
    for length in range(0, 200):
        try:
            decoder = SymbolDecoder(random.bytes(length), "y")
            assert len(decoder.decode(random.integers(0, 64, 300), TABLES)) == 300
        except CorruptFile:
            refused += 1
    assert refused < 200


def test_zeros_that_an_encoder_leaves_out_are_refused():
    with pytest.raises(CorruptFile, match="y: zero bytes at its end"):
        SymbolDecoder(b"abc\0", "y")


def test_scale_index_is_the_first_level_not_below_sigma():
    sigma = np.array([-1.0, 0.0, 0.1, 0.1101, 1.0, 255.0, 256.0, 1e9])
    indexes, _ = scale_indexes(sigma, SCALES)
    expected = [int(np.argmax(np.minimum(s, SCALES[-1]) <= SCALES)) for s in sigma]
    assert indexes.tolist() == expected


def test_sigma_near_a_boundary_is_flagged_on_both_sides():
    boundary = SCALES[17]
    sigma = boundary * (1 + np.array([-3e-9, -5e-10, 0, 5e-10, 3e-9]))
    indexes, near = scale_indexes(sigma, SCALES)
    assert near.tolist() == [False, True, True, True, False]
    assert indexes.tolist() == [17, 17, 17, 18, 18]


def test_tables_looked_up_a_few_at_a_time_are_those_of_all_at_once(monkeypatch):
    sigma = np.random.default_rng(6).uniform(0.05, 300, 1000)
    sigma[::7] = SCALES[20] * (1 + 1e-12)
    at_once = scale_indexes(sigma, SCALES)
    monkeypatch.setattr("tto.entropy_coding.AT_ONCE", 64)
    for expected, found in zip(at_once, scale_indexes(sigma, SCALES), strict=True):
        assert expected.dtype == found.dtype and np.array_equal(expected, found)
    assert [len(found) for found in scale_indexes(sigma[:0], SCALES)] == [0, 0]


def test_checksum_depends_on_every_index():
    indexes = np.arange(64, dtype=np.uint8)
    changed = indexes.copy()
    changed[40] ^= 1
    assert checksum(indexes) != checksum(changed)
