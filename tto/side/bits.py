"""Adaptive bit models: binary symbols whose probabilities are counted as they are coded.

Their state is made of integers alone, so what a decoder reads is the same on every machine. This module does not import
torch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue] (compiled)

from tto.entropy_coding import SymbolDecoder, SymbolEncoder

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


@lru_cache(maxsize=1 << PROBABILITY_BITS)
def _binary(level: int):
    whole = 1 << PROBABILITY_BITS
    return stream.model.Categorical(np.array([whole - level, level]) / whole, perfect=False)
