"""The published DCAE code's own bitstreams and `.bin` files, through CompressAI's rANS coder.

A `.bin` file is big-endian: height and width (16 bits each), then the y string and the z string, each behind its length
(32 bits). The image is centred in zeros up to multiples of 128. Neither model nor rate is written.

CompressAI's decoder reads past the end of a short buffer and its encoder does not end on non-finite latents, so
decoding pads the buffer beyond what any stream can consume and then re-encodes the symbols: a stream that is truncated
or altered does not come back byte for byte.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .third_party import compressai

if TYPE_CHECKING:
    from compressai.ans import RansDecoder

    from .base import BaseModel
    from .tables import IntegerTables


MAX_SYMBOL = 1 << 24
MOST_BYTES = 8
"""Of one symbol, and more than those below `MAX_SYMBOL` take."""


class StreamError(ValueError):
    """A published stream is truncated, altered, or belongs to other weights or another size."""


class _Tables:
    """Integer tables of one entropy model in the form that CompressAI's coder takes."""

    def __init__(self, tables: IntegerTables):
        self.cdfs, self.lengths, self.offsets = tables.cdfs.tolist(), tables.lengths.tolist(), tables.offsets.tolist()

    def encode(self, symbols: list[int], indexes: list[int]) -> bytes:
        encoder = compressai("ans").BufferedRansEncoder()
        encoder.encode_with_indexes(symbols, indexes, self.cdfs, self.lengths, self.offsets)
        return encoder.flush()

    def open(self, stream: bytes, count: int) -> RansDecoder:
        """A decoder for `count` symbols that stays inside its buffer even where the stream is garbage.

        The length of an escape is a run of nibbles with all bits set, each of which lets it read fifteen more.
        """
        if len(stream) < 8 or len(stream) % 4 or len(stream) > MOST_BYTES * count + 64:
            raise StreamError(f"a stream of {len(stream)} bytes is no rANS stream of {count} symbols")
        decoder = compressai("ans").RansDecoder()
        decoder.set_stream(stream + bytes(16 * (len(stream) + count) + 1024))
        return decoder

    def decode(self, decoder: RansDecoder, indexes: list[int]) -> list[int]:
        """Symbols; an absurd one (CompressAI's encoder would not end on it) means that the stream is garbage."""
        symbols = decoder.decode_stream(indexes, self.cdfs, self.lengths, self.offsets)
        if symbols and max(map(abs, symbols)) >= MAX_SYMBOL:
            raise StreamError("the stream is truncated or altered, or was written by other weights")
        return symbols


def _flat(x: Tensor) -> list[int]:
    return x.reshape(-1).int().tolist()


def _scale_indexes(model: BaseModel, sigma: Tensor | None) -> list[int]:
    """The first level of each σ that is not below it, or the last."""
    assert model.scale_table is not None and sigma is not None
    return _flat(torch.bucketize(sigma, model.scale_table[:-1]))


def _channel_indexes(count: int, size: tuple[int, int]) -> list[int]:
    return torch.arange(count).repeat_interleave(size[0] * size[1]).tolist()


@torch.no_grad()
def compress(model: BaseModel, x: Tensor) -> dict:
    """Image [1, 3, H, W] in [0, 1], sides multiples of the stride → `{"strings": [[y], [z]], "shape": size of z}`.

    Raises `ValueError` where the latents are not finite (the weights are damaged).
    """
    y = model.analysis(x)
    z = model.hyper_analysis(y)
    if not (y.isfinite().all() and z.isfinite().all()):
        raise ValueError("latents are not finite: the weights are damaged")
    medians = model.z_medians()
    z_symbols = (z - medians).round()
    z_size = (z.shape[-2], z.shape[-1])
    z_string = _Tables(model.z_tables()).encode(_flat(z_symbols), _channel_indexes(z.shape[1], z_size))
    symbols, indexes = [], []
    parts = model.split_y(y)

    def write(i: int, mu: Tensor, sigma: Tensor | None) -> Tensor:
        rounded = (parts[i] - mu).round()
        symbols.extend(_flat(rounded))
        indexes.extend(_scale_indexes(model, sigma))
        return rounded + mu

    model.walk(z_symbols + medians, 1.0, write)
    y_string = _Tables(model.y_tables()).encode(symbols, indexes)
    return {"strings": [[y_string], [z_string]], "shape": z_size}


@torch.no_grad()
def decompress(model: BaseModel, strings: list, shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> dict:
    """Inverse of `compress`, `shape` that of z: `{"x_hat": [1, 3, H, W] in [0, 1]}`. Raises `StreamError`.

    `dtype` is the precision in which tables are chosen. The published code has float32; where another machine's float32
    falls on the other side of a table's boundary, float64 may fall on the right one.
    """
    y_string, z_string = strings[0][0], strings[1][0]
    medians = model.z_medians()
    channels = medians.shape[1]
    z_tables, z_indexes = _Tables(model.z_tables()), _channel_indexes(channels, shape)
    z_symbols = z_tables.decode(z_tables.open(z_string, len(z_indexes)), z_indexes)
    if z_tables.encode(z_symbols, z_indexes) != z_string:
        raise StreamError("the z stream is truncated or altered")

    tables = _Tables(model.y_tables())
    count = math.prod(model.latent_shapes(*(model.stride * side for side in shape)).y)
    decoder = tables.open(y_string, count)
    symbols, indexes = [], []

    def read(i: int, mu: Tensor, sigma: Tensor | None) -> Tensor:
        levels = _scale_indexes(walker, sigma)
        values = tables.decode(decoder, levels)
        symbols.extend(values)
        indexes.extend(levels)
        return torch.tensor(values, dtype=mu.dtype, device=medians.device).view_as(mu) + mu

    walker = model if dtype == torch.float32 else model.entropy_walker(dtype)
    z_hat = torch.tensor(z_symbols, dtype=dtype, device=medians.device).view(1, channels, *shape) + medians
    walk = walker.walk(z_hat, 1.0, read)
    if tables.encode(symbols, indexes) != y_string:
        raise StreamError("the y stream is truncated or altered, or was written by other weights")
    return {"x_hat": model.synthesis(walk.y_hat.float()).clamp(0, 1)}


# ---- .bin files ---------------------------------------------------------------------------------------------

BIN_MULTIPLE = 128
BIN_MAX_SIDE = 65_535


def compress_bin(model: BaseModel, x: Tensor) -> bytes:
    """Image [1, 3, H, W] in [0, 1] of any size → a `.bin` file. Raises `ValueError` above 65 535 pixels a side."""
    height, width = x.shape[-2:]
    if max(height, width) > BIN_MAX_SIDE:
        raise ValueError(f"a published .bin file holds at most {BIN_MAX_SIDE} pixels a side, got {width}x{height}")
    left, right, top, bottom = _centred_padding(height, width)
    strings = compress(model, F.pad(x, (left, right, top, bottom)))["strings"]
    body = b"".join(struct.pack(">I", len(part[0])) + part[0] for part in strings)
    return struct.pack(">HH", height, width) + body


def decompress_bin(model: BaseModel, data: bytes, dtype: torch.dtype = torch.float32) -> Tensor:
    """A `.bin` file → image [1, 3, H, W] in [0, 1]. `dtype` as for `decompress`. Raises `StreamError`."""
    height, width, y_string, z_string = _split_bin(data)
    left, _, top, _ = _centred_padding(height, width)
    rows, columns = (-(-side // BIN_MULTIPLE) * BIN_MULTIPLE // model.stride for side in (height, width))
    x_hat = decompress(model, [[y_string], [z_string]], (rows, columns), dtype)["x_hat"]
    return x_hat[..., top : top + height, left : left + width]


def bin_size(data: bytes) -> tuple[int, int]:
    """Height and width of the picture in a `.bin` file. Raises `StreamError`."""
    height, width, _, _ = _split_bin(data)
    return height, width


def _split_bin(data: bytes) -> tuple[int, int, bytes, bytes]:
    try:
        height, width = struct.unpack_from(">HH", data)
        (y_length,) = struct.unpack_from(">I", data, 4)
        (z_length,) = struct.unpack_from(">I", data, 8 + y_length)
    except struct.error:
        raise StreamError("the .bin file is truncated") from None
    if len(data) != 12 + y_length + z_length or not (height and width):
        raise StreamError("the .bin file's lengths do not fit its size")
    return height, width, data[8 : 8 + y_length], data[12 + y_length :]


def _centred_padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, right, top, bottom."""
    extra_h, extra_w = -height % BIN_MULTIPLE, -width % BIN_MULTIPLE
    return extra_w // 2, extra_w - extra_w // 2, extra_h // 2, extra_h - extra_h // 2
