"""Pictures to and from the `.bin` files of the published DCAE code, for comparison with it.

A `.bin` file says neither which weights made it nor whether it is whole, and is portable only as far as float32 is.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from base_models.published import StreamError, compress_bin, decompress_bin
from tto.codec import Codec
from tto.errors import BadArgument, BadCheckpoint, CorruptFile, LimitExceeded
from tto.image import Picture
from tto.padding import to_tensor, to_uint8

SUFFIX = ".bin"
MAX_SIDE = 65_535


def encode_bin(codec: Codec, rgb: np.ndarray) -> bytes:
    """uint8 pixels [H, W, 3] → a `.bin` file.

    Raises `BadArgument` for a model of several rates (the file has no place for the quality), `LimitExceeded` or
    `BadCheckpoint`.
    """
    _require_one_rate(codec)
    if max(rgb.shape[:2]) > MAX_SIDE:
        raise LimitExceeded(f"a .bin file holds at most {MAX_SIDE} pixels a side")
    try:
        return compress_bin(codec.model, to_tensor(rgb).to(codec.device))
    except ValueError as error:
        raise BadCheckpoint(str(error)) from error


def decode_bin(codec: Codec, data: bytes) -> Image.Image:
    """A `.bin` file → RGB picture. Raises `BadArgument` or `CorruptFile`."""
    _require_one_rate(codec)
    try:
        return Picture(to_uint8(decompress_bin(codec.model, data))).to_pil()
    except StreamError as error:
        raise CorruptFile(SUFFIX, str(error)) from error


def _require_one_rate(codec: Codec) -> None:
    if codec.qualities != 1:
        raise BadArgument("published .bin files need a published model of one rate: give its checkpoint with -m")
