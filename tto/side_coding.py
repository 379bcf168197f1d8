"""Side information to bytes and back: mask and codes of the compensation, syntax of the transform, filter.

The coder's state is made of integers alone, so what it reads is the same on every machine. `h w` is the size of y.
This module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from constriction import stream

from tto.container import SectionType, section_name
from tto.entropy_coding import SymbolDecoder, SymbolEncoder
from tto.errors import CorruptFile

NO_CODE = -1
"""In place of a code where the mask is off."""
FINGERPRINT_BYTES = 4
"""At the start of the sections of compensation and syntax, of the side modules that made them."""
SYNTAX_SIZE = 9
LARGEST_LEVEL = 127
LARGEST_EXPONENT = 15
LARGEST_RICE = 7
PROBABILITY_BITS = 12
CONTEXTS = 9


@dataclass(frozen=True)
class Syntax:
    """The transform's nine numbers as the file has them: `levels` (−127…127) times 2^−`exponent` (0…15)."""

    levels: tuple[int, ...]
    exponent: int


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


# --- mask and codes ----------------------------------------------------------------------------------------------


def mask_context(left: bool, above: bool, above_left: bool, above_right: bool) -> int:
    """0…8: nearer neighbours weigh more. Positions outside the picture are off."""
    return 3 * (left + above) + above_left + above_right


def mask_contexts(mask: np.ndarray) -> np.ndarray:
    """`mask_context` of every position: bool [h, w] → int64 [h, w]."""
    height, width = mask.shape
    padded = np.zeros((height + 1, width + 2), np.int64)
    padded[1:, 1:-1] = mask
    above = padded[:-1]
    return 3 * (padded[1:, :-2] + above[:, 1:-1]) + above[:, :-2] + above[:, 2:]


def encode_codes(codes: np.ndarray, frequencies: np.ndarray) -> bytes:
    """The mask row by row, then the codes of the positions that are on: int64 [h, w] → bytes."""
    mask = codes != NO_CODE
    encoder, model = SymbolEncoder(), BitModel(CONTEXTS)
    for context, on in zip(mask_contexts(mask).ravel().tolist(), mask.ravel().tolist(), strict=True):
        model.encode(encoder, context, on)
    encoder.encode_with(codes[mask].astype(np.int32), _code_model(frequencies.tobytes()))
    return encoder.data()


def decode_codes(data: bytes, size: tuple[int, int], frequencies: np.ndarray) -> np.ndarray:
    """Inverse of `encode_codes`. Raises `CorruptFile`, also for a mask that is off everywhere."""
    decoder = SymbolDecoder(data, section_name(SectionType.COMPENSATION))
    mask = _decode_mask(decoder, size)
    codes = np.full(size, NO_CODE, np.int64)
    codes[mask] = decoder.decode_with(_code_model(frequencies.tobytes()), int(mask.sum()))
    return codes


def decode_mask(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask alone, bool [h, w]: it needs no model. Raises `CorruptFile`."""
    return _decode_mask(SymbolDecoder(data, section_name(SectionType.COMPENSATION)), size)


def _decode_mask(decoder: SymbolDecoder, size: tuple[int, int]) -> np.ndarray:
    model = BitModel(CONTEXTS)
    height, width = size
    rows = [[False] * (width + 2)]
    for _ in range(height):
        above, row = rows[-1], [False] * (width + 2)
        for column in range(1, width + 1):
            context = mask_context(row[column - 1], above[column], above[column - 1], above[column + 1])
            row[column] = model.decode(decoder, context)
        rows.append(row)
    mask = np.array(rows[1:], dtype=bool)[:, 1:-1]
    if not mask.any():
        raise CorruptFile(section_name(SectionType.COMPENSATION), "the mask is off everywhere")
    return mask


@lru_cache(maxsize=1 << PROBABILITY_BITS)
def _binary(level: int):
    whole = 1 << PROBABILITY_BITS
    return stream.model.Categorical(np.array([whole - level, level]) / whole, perfect=False)


@lru_cache(maxsize=4)
def _code_model(frequencies: bytes):
    return stream.model.Categorical(np.frombuffer(frequencies, np.int64) / 65536, perfect=False)


# --- syntax ------------------------------------------------------------------------------------------------------


def encode_syntax(syntax: Syntax) -> bytes:
    """One byte with exponent and Rice parameter, then nine Rice codes, most significant bit first."""
    numbers = [2 * level if level >= 0 else -2 * level - 1 for level in syntax.levels]
    rice = min(range(LARGEST_RICE + 1), key=lambda k: sum((number >> k) + 1 + k for number in numbers))
    bits = "".join("1" * (n >> rice) + f"{n & ((1 << rice) - 1):0{rice + 1}b}" for n in numbers)
    bits += "0" * (-len(bits) % 8)
    return bytes([syntax.exponent << 4 | rice]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def decode_syntax(data: bytes) -> Syntax:
    """Inverse of `encode_syntax`. Raises `CorruptFile`."""
    name = section_name(SectionType.SYNTAX)
    exponent, rice = data[0] >> 4, data[0] & 15
    if rice > LARGEST_RICE:
        raise CorruptFile(name, f"Rice parameter {rice}")
    bits = "".join(f"{byte:08b}" for byte in data[1:])
    levels, position = [], 0
    for _ in range(SYNTAX_SIZE):
        end = bits.find("0", position)
        if end < 0 or end + 1 + rice > len(bits):
            raise CorruptFile(name, "it ends inside a number")
        number = (end - position) << rice | int("0" + bits[end + 1 : end + 1 + rice], 2)
        levels.append(-(number + 1) // 2 if number % 2 else number // 2)
        position = end + 1 + rice
    if max(map(abs, levels)) > LARGEST_LEVEL:
        raise CorruptFile(name, "a number is out of range")
    if len(bits) - position >= 8 or "1" in bits[position:]:
        raise CorruptFile(name, "something follows the last number")
    return Syntax(tuple(levels), exponent)


# --- filter ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilterLevels:
    """The filter's coefficients as the file has them: `levels` [rows][taps] (−127…127) times 2^−`exponent` (0…15)."""

    levels: tuple[tuple[int, ...], ...]
    exponent: int


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


def encode_filter(found: FilterLevels, rings: tuple[int, ...]) -> bytes:
    """One byte, the exponent; then the levels, row by row. `rings` has one number for each tap."""
    encoder, model = SymbolEncoder(), LevelModel(rings)
    for number, row in enumerate(found.levels, 1):
        for tap, level in enumerate(row):
            model.encode(encoder, tap, number == len(found.levels), level)
    return bytes([found.exponent]) + encoder.data()


def decode_filter(data: bytes, rows: int, rings: tuple[int, ...]) -> FilterLevels:
    """Inverse of `encode_filter`. Raises `CorruptFile`, also for levels that are all zero."""
    name = section_name(SectionType.FILTER)
    if not data or data[0] > LARGEST_EXPONENT:
        raise CorruptFile(name, f"exponent {data[0]}" if data else "it is empty")
    decoder, model = SymbolDecoder(data[1:], name), LevelModel(rings)
    levels = tuple(
        tuple(model.decode(decoder, tap, number == rows) for tap in range(len(rings))) for number in range(1, rows + 1)
    )
    if not any(map(any, levels)):
        raise CorruptFile(name, "the filter does nothing")
    return FilterLevels(levels, data[0])
