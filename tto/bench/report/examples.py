"""Pictures for the report: what each codec makes of an image at about the same rate."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tto.bench.coders import ModelCoder
from tto.bench.measure import Machine, Task
from tto.bench.rows import Row
from tto.image import central

VIEW_SIDE = 1024
"""A larger image is shown by its central part of this many pixels a side."""
OVERLAY_RGB = (255, 0, 128)
OVERLAY_MAX_ALPHA = 220


@dataclass(frozen=True)
class View:
    """One version of an image. source, bits: data URLs; bits is empty where no map of them is to be had."""

    label: str
    note: str
    source: str
    bits: str = ""


@dataclass(frozen=True)
class Rate:
    """views: those that are compared at about this rate, as indexes into the example's, one for each label."""

    name: str
    views: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    image: str
    width: int
    height: int
    views: tuple[View, ...]
    rates: tuple[Rate, ...]


def make_examples(tasks: Sequence[Task], rows: Sequence[Row], main: str, machine: Machine, count: int) -> list[Example]:
    """`count` images spread evenly over the set, each by every codec at a low, a middle and a high rate of `main`.

    `rows[i]` is what `tasks[i]` gave; `main` is the label of the curve whose qualities set the rates. Files are decoded
    anew.
    """
    images = list(dict.fromkeys(row.image for row in rows if row.label == main))
    count = min(count, len(images))
    chosen = [images[(2 * i + 1) * len(images) // (2 * count)] for i in range(count)]
    pairs = list(zip(tasks, rows, strict=True))
    return [_example([pair for pair in pairs if pair[1].image == image], main, machine) for image in chosen]


def _example(pairs: Sequence[tuple[Task, Row]], main: str, machine: Machine) -> Example:
    ladder = sorted(row.bpp for _, row in pairs if row.label == main)
    targets = [ladder[i] for i in dict.fromkeys((0, (len(ladder) - 1) // 2, len(ladder) - 1))]
    pixels = pairs[0][0].source.pixels()
    shown = central(pixels, VIEW_SIDE)
    views = {"": View("original", f"{8 * pixels[0, 0].size} bpp", _data_url(shown))}
    rates = []
    for target in targets:
        keys = [""]
        for label in dict.fromkeys(row.label for _, row in pairs):
            own = [pair for pair in pairs if pair[1].label == label]
            task, row = min(own, key=lambda pair: abs(math.log(pair[1].bpp / target)))
            keys.append(row.key)
            if row.key not in views:
                views[row.key] = _view(task, row, machine)
        rates.append(Rate(f"{target:.2f} bpp", tuple(list(views).index(key) for key in keys)))
    return Example(pairs[0][1].image, shown.shape[1], shown.shape[0], tuple(views.values()), tuple(rates))


def _view(task: Task, row: Row, machine: Machine) -> View:
    coder = task.series.open(task.series.rung(row.quality), machine.device)
    data = (machine.folder / row.file).read_bytes()
    decoded = np.asarray(coder.decode(data))
    note = f"quality {row.quality:g}, {row.bytes} bytes, {row.bpp:.3f} bpp, {row.scores['psnr']:.2f} dB"
    bits = ""
    if isinstance(coder, ModelCoder):
        overlay = bit_overlay(
            bits_per_position(coder, data),
            (decoded.shape[0], decoded.shape[1]),
            coder.codec.at(row.quality).model.y_stride,
        )
        bits = _data_url(central(overlay, VIEW_SIDE))
    return View(row.label, note, _data_url(central(decoded, VIEW_SIDE)), bits)


def bits_per_position(coder: ModelCoder, data: bytes) -> np.ndarray:
    """Bits of y in a file at each latent position, float [h, w], as its entropy model prices them."""
    from tto.explain import open_file

    return open_file(coder.codec.for_file(data), data).bits


def bit_overlay(bits: np.ndarray, size: tuple[int, int], block: int) -> np.ndarray:
    """uint8 RGBA [H, W, 4]: the more bits a block of the image takes, the more opaque. block: its side in pixels."""
    alpha = bits / max(float(bits.max()), 1e-9) * OVERLAY_MAX_ALPHA
    blocks = np.kron(alpha, np.ones((block, block)))[: size[0], : size[1]]
    overlay = np.empty((*blocks.shape, 4), np.uint8)
    overlay[..., :3] = OVERLAY_RGB
    overlay[..., 3] = np.round(blocks)
    return overlay


def _data_url(pixels: np.ndarray) -> str:
    """Lossless WebP: the pixels as they are, in about three quarters of a PNG's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", lossless=True, quality=50, method=2)
    return "data:image/webp;base64," + b64encode(buffer.getvalue()).decode()
