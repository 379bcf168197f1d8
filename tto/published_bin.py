"""Pictures to and from the `.bin` files of the published DCAE code, for comparison with it.

A `.bin` file says neither which weights made it nor whether it is whole, and is portable only as far as float32 is: one
σ that another processor rounds to the other side of a table's boundary, and the rest is noise.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from base_models.published import StreamError, bin_size, compress_bin, decompress_bin
from tto.codec import AnyCodec, Codec, Result, rd_cost
from tto.container import MAX_PIXELS, check_size
from tto.device import has_float64
from tto.errors import BadArgument, BadCheckpoint, CorruptFile, LimitExceeded
from tto.image import Picture, load_picture
from tto.memory import memory_for
from tto.metrics import psnr
from tto.padding import to_tensor, to_uint8
from tto.refine.distortion import make_distortion

if TYPE_CHECKING:
    from base_models import BaseModel
    from tto.image import PictureLike

SUFFIX = ".bin"
MAX_SIDE = 65_535


def encode_bin(codec: AnyCodec, rgb: np.ndarray) -> bytes:
    """uint8 pixels [H, W, 3] → a `.bin` file.

    Raises `BadArgument` for a model of several rates (the file has no place for the quality) or one whose symbols are
    not centred on μ, `LimitExceeded`, `NotEnoughMemory` or `BadCheckpoint`.
    """
    model = _suitable(codec)
    if max(rgb.shape[:2]) > MAX_SIDE:
        raise LimitExceeded(f"a .bin file holds at most {MAX_SIDE} pixels a side")
    height, width = rgb.shape[:2]
    try:
        with memory_for(width, height, codec.device):
            return compress_bin(model, to_tensor(rgb).to(codec.device))
    except ValueError as error:
        raise BadCheckpoint(str(error)) from error


def compress_to_bin(codec: AnyCodec, image: PictureLike, lambda_: float | None = None) -> Result:
    """A picture → a `.bin` file with its figures; only colours are kept. Raises as `encode_bin`."""
    start, model = time.perf_counter(), _suitable(codec)
    rgb = load_picture(image).rgb
    data = encode_bin(codec, rgb)
    image, _ = decode_bin(codec, data, max_pixels=None)
    distortion = make_distortion(rgb, "mse", None)
    decoded = np.asarray(image)
    cost = rd_cost(len(data), distortion, decoded, lambda_ or float(model.lambda_at(1.0)))
    quality = psnr(rgb, decoded)
    return Result(
        data=data,
        image=image,
        width=image.width,
        height=image.height,
        bpp=8 * len(data) / (image.width * image.height),
        psnr=quality,
        J=cost,
        base_bytes=len(data),
        base_psnr=quality,
        base_J=cost,
        steps=0,
        seconds=time.perf_counter() - start,
    )


def decode_bin(codec: AnyCodec, data: bytes, max_pixels: int | None = MAX_PIXELS) -> tuple[Image.Image, str]:
    """A `.bin` file → RGB picture and the arithmetic that could read it: float32, or float64 where that gave damage and
    the device has it.

    Raises `BadArgument`, `LimitExceeded`, `NotEnoughMemory`, or `CorruptFile` where neither can.
    """
    model = _suitable(codec)
    damage: list[StreamError] = []
    try:
        height, width = bin_size(data)
    except StreamError as error:
        raise CorruptFile(SUFFIX, str(error)) from error
    check_size(width, height, max_pixels)
    with memory_for(width, height, codec.device):
        for dtype in (torch.float32, torch.float64)[: 1 + has_float64(codec.device)]:
            try:
                image = Picture(to_uint8(decompress_bin(model, data, dtype))).to_pil()
                return image, str(dtype).removeprefix("torch.")
            except StreamError as error:
                damage.append(error)
    raise CorruptFile(SUFFIX, str(damage[0])) from damage[0]


def _suitable(codec: AnyCodec) -> BaseModel:
    if not isinstance(codec, Codec) or codec.qualities != 1:
        raise BadArgument("published .bin files need a published model of one rate: give its checkpoint with -m")
    if codec.model.scale_table is None or codec.model.grid != "mean":
        raise BadArgument("published .bin files need a model that codes y less its mean, as DCAE does")
    return codec.model
