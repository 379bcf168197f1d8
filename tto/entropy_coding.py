"""Range coding of latents with integer tables, the same on every machine.

A symbol is `round((y − μ) / Δ)`; its table is one of the model's, chosen by the *scale index* of σ / Δ. The tables are
integers that travel with the checkpoint. A scale index that differed between encoder and decoder would destroy the
stream, so σ is computed in float64 on both sides and the encoder lists the rare indexes that lie too close to a level's
boundary.

Symbols are coded grouped by table (`constriction`'s range coder, memory-safe Rust); those outside a table's range are
coded as its last entry, and their distance beyond the range follows the group as an Elias-gamma number of plain bits.
"""

from __future__ import annotations

import zlib
from functools import cached_property
from itertools import pairwise

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue] (compiled)

from base_models.tables import TOTAL, IntegerTables
from tto.errors import CorruptFile

BOUNDARY_MARGIN = 1e-9
"""Relative distance of σ from a level's boundary below which its index is written explicitly; float64 evaluations of
one network differ by about 1e-13 between machines."""

GAMMA_LENGTH_BITS = 5
AT_ONCE = 1 << 16
"""Values of σ whose tables are looked up at a time."""


class Tables(IntegerTables):
    """Integer tables as the range coder takes them."""

    @classmethod
    def of(cls, tables: IntegerTables) -> Tables:
        return cls(tables.cdfs, tables.lengths, tables.offsets)

    @cached_property
    def _models(self) -> dict[int, stream.model.Categorical]:
        return {}

    def model(self, table: int) -> stream.model.Categorical:
        """The coder's model of a table. Its probabilities are 16-bit fractions, exact in float64 on every machine."""
        if table not in self._models:
            shares = self.frequencies(table).astype(np.float64) / TOTAL
            self._models[table] = stream.model.Categorical(shares, perfect=False)
        return self._models[table]

    def bits(self, symbols: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        """What `SymbolEncoder.encode` spends on each, float64 [n]."""
        values = symbols - self.offsets[indexes]
        escapes = self.lengths[indexes] - 2
        outside = (values < 0) | (values >= escapes)
        numbers = np.where(values >= escapes, 2 * (values - escapes) + 1, -2 * values)[outside]
        bits = self.costs[indexes, np.where(outside, escapes, values)]
        bits[outside] += GAMMA_LENGTH_BITS + np.floor(np.log2(numbers))
        return bits


class SymbolEncoder:
    """Appends groups of symbols to one range-coded stream."""

    def __init__(self):
        self._coder = stream.queue.RangeEncoder()

    def encode(self, symbols: np.ndarray, indexes: np.ndarray, tables: Tables) -> None:
        """`symbols` int [n], `indexes` [n] the table of each."""
        order = np.argsort(indexes, kind="stable")
        symbols, indexes = symbols[order].astype(np.int64, copy=False), indexes[order]
        for table, start, end in _groups(indexes):
            escape = tables.escape(table)
            values = symbols[start:end] - int(tables.offsets[table])
            outside = (values < 0) | (values >= escape)
            coded = np.where(outside, escape, values).astype(np.int32)
            self._coder.encode(coded, tables.model(table))
            for value in values[outside].tolist():
                self._encode_gamma(2 * (value - escape) + 1 if value >= escape else -2 * value)

    def encode_with(self, symbols: int | np.ndarray, model) -> None:
        """One symbol, or int32 [n], with one of `constriction`'s models."""
        self._coder.encode(symbols, model)

    def _encode_gamma(self, number: int) -> None:
        """A number ≥ 1 as its length in bits, then its bits below the leading one, sixteen at a time."""
        bits = number.bit_length() - 1
        self._coder.encode(bits, _GAMMA_LENGTH)
        for shift in range(0, bits, 16):
            width = min(16, bits - shift)
            self._coder.encode(number >> shift & ((1 << width) - 1), stream.model.Uniform(1 << width))

    def data(self) -> bytes:
        """The stream so far; a multiple of four bytes less its trailing zero bytes."""
        return self._coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class SymbolDecoder:
    """Reads what `SymbolEncoder` wrote, given the same indexes in the same order."""

    def __init__(self, data: bytes, section: str):
        self._section = section
        if data.endswith(b"\0"):
            raise CorruptFile(section, "zero bytes at its end, which are left out")
        words = np.frombuffer(data + bytes(-len(data) % 4), dtype="<u4")
        self._coder = stream.queue.RangeDecoder(words.astype(np.uint32))

    def decode(self, indexes: np.ndarray, tables: Tables) -> np.ndarray:
        """Symbols int64 [n] for `indexes` [n]. Raises `CorruptFile` where the stream cannot be one."""
        order = np.argsort(indexes, kind="stable")
        grouped = indexes[order]
        symbols = np.empty(len(indexes), dtype=np.int64)
        for table, start, end in _groups(grouped):
            escape = tables.escape(table)
            group = self.decode_with(tables.model(table), end - start).astype(np.int64)
            for position in np.flatnonzero(group == escape):
                number = self._decode_gamma()
                group[position] = escape + number // 2 if number % 2 else -number // 2
            symbols[order[start:end]] = group + int(tables.offsets[table])
        return symbols

    def _decode_gamma(self) -> int:
        bits = int(self.decode_with(_GAMMA_LENGTH, 1)[0])
        number = 0
        for shift in range(0, bits, 16):
            width = min(16, bits - shift)
            number |= int(self.decode_with(stream.model.Uniform(1 << width), 1)[0]) << shift
        return number | 1 << bits

    def decode_with(self, model, count: int) -> np.ndarray:
        """int32 [count], each with one of `constriction`'s models. Raises `CorruptFile`."""
        try:
            return self._coder.decode(model, count)
        except AssertionError:
            raise CorruptFile(self._section, "the range-coded stream is damaged") from None


_GAMMA_LENGTH = stream.model.Uniform(1 << GAMMA_LENGTH_BITS)


def _groups(sorted_indexes: np.ndarray):
    """(table, start, end) of each run of equal indexes."""
    cuts = np.flatnonzero(np.diff(sorted_indexes)) + 1
    spans = pairwise((0, *cuts.tolist(), len(sorted_indexes)))
    return ((int(sorted_indexes[start]), start, end) for start, end in spans if start < end)


def scale_indexes(sigma: np.ndarray, scale_table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Table of each σ, and where it is too close to a boundary to be recomputed elsewhere.

    `sigma` float64 [n] in units of the quantization step, `scale_table` float64 [T] ascending, T ≤ 256. The index
    of σ is the first level that is at least σ, or the last. Returns uint8 [n] and bool [n].
    """
    parts = np.array_split(sigma, -(-len(sigma) // AT_ONCE) or 1)
    indexes, near = zip(*(_scale_indexes(part, scale_table[:-1]) for part in parts), strict=True)
    return np.concatenate(indexes), np.concatenate(near)


def _scale_indexes(sigma: np.ndarray, boundaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indexes = np.searchsorted(boundaries, sigma, side="left")
    below = boundaries[np.maximum(indexes - 1, 0)]
    above = boundaries[np.minimum(indexes, len(boundaries) - 1)]
    near = (np.abs(sigma - below) < BOUNDARY_MARGIN * below) | (np.abs(sigma - above) < BOUNDARY_MARGIN * above)
    return indexes.astype(np.uint8), near


def checksum(indexes: np.ndarray, before: int = 0) -> int:
    """CRC-32 of table indexes (uint8 or little-endian uint16, coding order), going on from that of those before."""
    return zlib.crc32(indexes.tobytes(), before)
