"""Mask and codes of the compensation to bytes and back. `h w` is the size of y. This module does not import torch."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue] (compiled)

from base_models.tables import TOTAL
from tto.container import SectionType, section_name
from tto.entropy_coding import SymbolDecoder, SymbolEncoder
from tto.errors import CorruptFile
from tto.side.bits import BitModel

NO_CODE = -1
"""In place of a code where the mask is off."""
CONTEXTS = 9


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


@lru_cache(maxsize=4)
def _code_model(frequencies: bytes):
    return stream.model.Categorical(np.frombuffer(frequencies, np.int64) / TOTAL, perfect=False)
