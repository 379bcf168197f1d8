"""Adaptive bit models: binary symbols whose probabilities are counted as they are coded, and levels made of them.

Their state is made of integers alone, so what a decoder reads is the same on every machine. This module does not import
torch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue] (compiled)

from tto.entropy_coding import SymbolDecoder, SymbolEncoder
from tto.errors import CorruptFile, WrongLength

PROBABILITY_BITS = 12
LARGEST_LEVEL = 127
LARGEST_EXPONENT = 15
"""Of numbers that a section has as a level times 2^−exponent."""


class BitModel:
    """Adaptive probability that a bit is on, in each of several contexts.

    Per context two counts; all arithmetic is on integers.
    """

    def __init__(self, contexts: int):
        self.counts = [[0, 0] for _ in range(contexts)]

    def level(self, context: int) -> int:
        """Probability of "on" in units of 2⁻¹²: (on + ½) / (off + on + 1), rounded down, at least one unit."""
        off, on = self.counts[context]
        return max(1, ((2 * on + 1) << PROBABILITY_BITS) // (2 * (off + on) + 2))

    def note(self, context: int, on: bool) -> None:
        self.counts[context][on] += 1

    def encode(self, encoder: SymbolEncoder, context: int, on: bool) -> None:
        encoder.encode_with(int(on), _binary(self.level(context)))
        self.note(context, on)

    def decode(self, decoder: SymbolDecoder, context: int) -> bool:
        on = bool(decoder.decode_with(_binary(self.level(context)), 1)[0])
        self.note(context, on)
        return on


class LevelModel:
    """Adaptive probabilities of levels, each as bits: whether its magnitude goes on from 0, 1, 2, … and then its sign.

    Magnitudes have contexts for each ring of taps and the first `MAGNITUDES` of these bits, in the last row (chroma)
    others; signs for each tap.
    """

    MAGNITUDES = 6

    def __init__(self, rings: tuple[int, ...]):
        self.rings = rings
        self._spread = max(rings) + 1
        self.magnitudes = BitModel(2 * self._spread * self.MAGNITUDES)
        self.signs = BitModel(len(rings))

    def context(self, tap: int, last_row: bool, magnitude: int) -> int:
        ring = self.rings[tap] + self._spread * last_row
        return self.MAGNITUDES * ring + min(magnitude, self.MAGNITUDES - 1)

    def encode(self, encoder: SymbolEncoder, tap: int, last_row: bool, level: int) -> None:
        for magnitude in range(min(abs(level) + 1, LARGEST_LEVEL)):
            self.magnitudes.encode(encoder, self.context(tap, last_row, magnitude), abs(level) > magnitude)
        if level:
            self.signs.encode(encoder, tap, level < 0)

    def decode(self, decoder: SymbolDecoder, tap: int, last_row: bool) -> int:
        magnitude = 0
        while magnitude < LARGEST_LEVEL and self.magnitudes.decode(decoder, self.context(tap, last_row, magnitude)):
            magnitude += 1
        return -magnitude if magnitude and self.signs.decode(decoder, tap) else magnitude


def read_exponent(body: bytes, section: str) -> int:
    """The first byte of a section whose numbers are levels times 2^−exponent. Raises `CorruptFile` or `WrongLength`."""
    if not body:
        raise WrongLength(section, "it is empty")
    if body[0] > LARGEST_EXPONENT:
        raise CorruptFile(section, f"exponent {body[0]}")
    return body[0]


@lru_cache(maxsize=1 << PROBABILITY_BITS)
def _binary(level: int):
    whole = 1 << PROBABILITY_BITS
    return stream.model.Categorical(np.array([whole - level, level]) / whole, perfect=False)
