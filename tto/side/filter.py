"""A filter for one picture after g_s, its coefficients told in the file **[ours]**.

It is what the adaptive loop filter is to video codecs (VVC; Tsai et al. 2013): luma goes through one of 15 symmetric
kernels of 7×7 pixels in the shape of a diamond, chosen for each block of 4×4 by the decoded picture itself, and
chroma, which here is each channel less luma, through one kernel. Nothing is learned: the encoder fits coefficients by
least squares. All zero changes nothing.

Shapes: `H W` size of the picture, `T` = 12 pairs of taps, `C` = 15 classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from tto.container import SectionType, section_name
from tto.entropy_coding import SymbolDecoder, SymbolEncoder
from tto.errors import CorruptFile
from tto.side.bits import LevelModel, read_exponent
from tto.side.side import Part, PartCoder

RADIUS = 3
TAPS = tuple(
    (dy, dx)
    for dy in range(-RADIUS, RADIUS + 1)
    for dx in range(-RADIUS, RADIUS + 1)
    if abs(dy) + abs(dx) <= RADIUS and (dy, dx) < (0, 0)
)
"""One of each pair of taps, (rows down, columns right); the other is opposite, and has the same coefficient."""
RINGS = tuple(abs(dy) + abs(dx) - 1 for dy, dx in TAPS)
BLOCK = 4
BAND = 1 << 18
"""Pixels that are filtered at once."""
ACTIVITIES = (6.0, 20.0)
"""Between classes of activity: mean absolute second difference down plus across, levels of 255."""
DIRECTIONS = 5
STRAIGHT, DIAGONAL = 2.0, 1.5
"""How many times as large one second difference must be as that at right angles, for a direction."""
CLASSES = DIRECTIONS * (len(ACTIVITIES) + 1)
ROWS = CLASSES + 1
"""Of coefficients [ROWS, T]: one for each class, then chroma's."""
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
RED_IN_GREEN, BLUE_IN_GREEN = -LUMA[0] / LUMA[1], -LUMA[2] / LUMA[1]
"""What green less luma is of red's and blue's."""


class Band(NamedTuple):
    """Rows of a picture, what is needed to filter them, and where the rows are in that."""

    rows: slice
    around: slice
    inside: slice


def bands(height: int, width: int) -> Iterator[Band]:
    """The rows of a picture, as many at a time as have `BAND` pixels."""
    count = max(BAND // width // BLOCK, 1) * BLOCK
    for start in range(0, height, count):
        stop = min(height, start + count)
        above = max(0, start - 2 * BLOCK)
        yield Band(slice(start, stop), slice(above, min(height, stop + 2 * BLOCK)), slice(start - above, stop - above))


def apply_filter(x_hat: Tensor, coefficients: Tensor) -> Tensor:
    """Filters x̂ [1, 3, H, W], not clamped, with coefficients [ROWS, T]. Gradients are x̂'s, with classes fixed."""
    return cast(Tensor, _Filtering.apply(x_hat, coefficients))


class _Filtering(torch.autograd.Function):
    """A band at a time. Autograd's own backward pass would fill a plane with zeros for every tap."""

    @staticmethod
    def forward(ctx, x_hat: Tensor, coefficients: Tensor) -> Tensor:
        filtered, classes = torch.empty(x_hat.shape, dtype=x_hat.dtype, device=x_hat.device), []
        for rows, around, inside in bands(*x_hat.shape[2:]):
            part = x_hat[:, :, around]
            luma = luma_of(part)
            classes.append(block_classes(luma))
            if coefficients[:CLASSES].any():
                part = part + _change_of_luma(luma, classes[-1], coefficients[:CLASSES])
            if coefficients[CLASSES].any():
                part = part + _change_of_chroma(x_hat[:, :, around] - luma, coefficients[CLASSES])
            filtered[:, :, rows] = part[:, :, inside]
        ctx.save_for_backward(coefficients, *classes)
        return filtered

    @staticmethod
    def backward(ctx, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,), (coefficients, *classes) = upstream, ctx.saved_tensors
        total = gradient.clone()
        for (rows, around, inside), of_band in zip(bands(*gradient.shape[2:]), classes, strict=True):
            part = torch.zeros_like(gradient[:, :, around])
            part[:, :, inside] = gradient[:, :, rows]
            luma = torch.zeros_like(part[:, :1])
            if coefficients[:CLASSES].any():
                luma += _luma_transposed(part, of_band, coefficients[:CLASSES])
            if coefficients[CLASSES].any():
                chroma = _chroma_transposed(part, coefficients[CLASSES])
                luma -= chroma.sum(1, keepdim=True)
                total[:, ::2, around] += chroma
            total[:, :, around] += luma * luma.new_tensor(LUMA).view(1, 3, 1, 1)
        return total, None


def _change_of_luma(luma: Tensor, classes: Tensor, coefficients: Tensor) -> Tensor:
    """[1, 1, H, W], its blocks' classes, coefficients [C, T] → [1, 1, H, W]."""
    height, width = luma.shape[-2:]
    whole = pad(luma, (0, -width % BLOCK, 0, -height % BLOCK), "replicate")
    used, (*of_tap, total) = _weights(classes, coefficients.to(luma))
    change = torch.zeros_like(whole)
    for pair, weight in zip(_pairs(whole, used), of_tap, strict=True):
        _by_blocks(change).addcmul_(_by_blocks(pair), weight)
    _by_blocks(change).addcmul_(_by_blocks(whole), total, value=-2)
    return change[..., :height, :width]


def _luma_transposed(gradient: Tensor, classes: Tensor, coefficients: Tensor) -> Tensor:
    """Gradient of what was filtered [1, 3, H, W] → that of luma by `_change_of_luma` [1, 1, H, W]."""
    height, width = gradient.shape[-2:]
    own = pad(gradient.sum(1, keepdim=True), (0, -width % BLOCK, 0, -height % BLOCK))
    used, weights = _weights(classes, coefficients.to(gradient))

    def weighted(weight: Tensor) -> Tensor:
        return (_by_blocks(own) * weight).view_as(own)[..., :height, :width]

    *of_tap, total = map(weighted, weights)
    return _pairs_transposed(of_tap, used).sub_(total, alpha=2)


def _weights(classes: Tensor, coefficients: Tensor) -> tuple[list[bool], Sequence[Tensor]]:
    """Which taps any class uses; for each of these its weight in every block, then their sum: [⌈H/4⌉, 1, 4·⌈W/4⌉]."""
    used = coefficients.any(0).tolist()
    weights = coefficients[:, used]
    weights = torch.cat([weights, weights.sum(1, keepdim=True)], 1)
    return used, weights[classes].permute(2, 0, 1).repeat_interleave(BLOCK, 2)[:, :, None].unbind()


def _by_blocks(plane: Tensor) -> Tensor:
    """[1, 1, H, W] → a view [H/4, 4, W]."""
    return plane[0, 0].unflatten(0, (-1, BLOCK))


def _change_of_chroma(chroma: Tensor, coefficients: Tensor) -> Tensor:
    """[1, 3, H, W] and coefficients [T] → [1, 3, H, W]: of red and blue; green's follows, as luma has none."""
    used, chroma = coefficients.bool().tolist(), chroma[:, ::2]
    change = -2 * float(coefficients.sum()) * chroma
    for pair, weight in zip(_pairs(chroma, used), coefficients[used].tolist(), strict=True):
        change.add_(pair, alpha=weight)
    red, blue = change.split(1, 1)
    return torch.cat([red, RED_IN_GREEN * red + BLUE_IN_GREEN * blue, blue], 1)


def _chroma_transposed(gradient: Tensor, coefficients: Tensor) -> Tensor:
    """Gradient of what was filtered [1, 3, H, W] → that of red and blue less luma [1, 2, H, W]."""
    red, green, blue = gradient.split(1, 1)
    own, used = torch.cat([red + RED_IN_GREEN * green, blue + BLUE_IN_GREEN * green], 1), coefficients.bool().tolist()
    of_tap = (own * weight for weight in coefficients[used].tolist())
    return _pairs_transposed(of_tap, used).sub_(own, alpha=2 * float(coefficients.sum()))


def luma_of(x_hat: Tensor) -> Tensor:
    """[1, 3, H, W] → [1, 1, H, W]."""
    return (x_hat * x_hat.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def second_differences(plane: Tensor, taps: Iterable[tuple[int, int]] = TAPS) -> Iterator[Tensor]:
    """For each tap, plane(there) + plane(opposite) − 2·plane, of the plane's shape; borders are repeated."""
    twice = 2 * plane
    return (pair - twice for pair in _sums(plane, taps))


def _pairs(plane: Tensor, used: Sequence[bool]) -> Iterator[Tensor]:
    return _sums(plane, compress(TAPS, used))


def _sums(plane: Tensor, taps: Iterable[tuple[int, int]]) -> Iterator[Tensor]:
    """plane(there) + plane(opposite) for each tap."""
    height, width = plane.shape[-2:]
    wide = pad(plane, (RADIUS,) * 4, "replicate")

    def at(dy: int, dx: int) -> Tensor:
        return wide[..., RADIUS + dy : RADIUS + dy + height, RADIUS + dx : RADIUS + dx + width]

    return (at(dy, dx) + at(-dy, -dx) for dy, dx in taps)


def _pairs_transposed(gradients: Iterable[Tensor], used: Sequence[bool]) -> Tensor:
    """Transpose of `_pairs`, summed over taps: for each used one a gradient [1, K, H, W] → [1, K, H, W]."""
    wide, r = torch.zeros(()), RADIUS
    for gradient, (dy, dx) in zip(gradients, compress(TAPS, used), strict=True):
        height, width = gradient.shape[-2:]
        if not wide.dim():
            wide = gradient.new_zeros(*gradient.shape[:2], height + 2 * r, width + 2 * r)
        for down, right in ((dy, dx), (-dy, -dx)):
            wide[..., r + down : r + down + height, r + right : r + right + width] += gradient
    for border, edge in ((wide[..., :r, :], r), (wide[..., -r:, :], -r - 1)):
        wide[..., edge, :] += border.sum(-2)
    for border, edge in ((wide[..., :r], r), (wide[..., -r:], -r - 1)):
        wide[..., edge] += border.sum(-1)
    return wide[..., r:-r, r:-r]


def block_classes(luma: Tensor) -> Tensor:
    """Luma [1, 1, H, W] → class of each block by the 3×3 around it, int64 [⌈H/4⌉, ⌈W/4⌉]: 5·activity + direction.

    Directions: 0 none, 1 and 2 where second differences are larger across and down, 3 and 4 along the diagonals.
    """
    height, width = luma.shape[-2:]
    plane = 255 * pad(luma.detach(), (0, -width % BLOCK, 0, -height % BLOCK), "replicate")
    across, down, falling, rising = (
        avg_pool2d(avg_pool2d(difference.abs(), BLOCK), 3, 1, 1, count_include_pad=False)
        for difference in second_differences(plane, ((0, -1), (-1, 0), (-1, -1), (-1, 1)))
    )
    direction = torch.where(
        across > STRAIGHT * down,
        1,
        torch.where(
            down > STRAIGHT * across,
            2,
            torch.where(falling > DIAGONAL * rising, 3, torch.where(rising > DIAGONAL * falling, 4, 0)),
        ),
    )
    activity = torch.bucketize(across + down, plane.new_tensor(ACTIVITIES))
    return (DIRECTIONS * activity + direction)[0, 0]


# --- what travels in the file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilterLevels:
    """The filter's coefficients as the file has them: `levels` [rows][taps] (−127…127) times 2^−`exponent` (0…15)."""

    levels: tuple[tuple[int, ...], ...]
    exponent: int

    @property
    def coefficients(self) -> Tensor:
        """[rows, taps] float32, exact."""
        return torch.tensor(self.levels, dtype=torch.float32) * 2.0**-self.exponent


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
    exponent = read_exponent(data, name)
    decoder, model = SymbolDecoder(data[1:], name), LevelModel(rings)
    levels = tuple(
        tuple(model.decode(decoder, tap, number == rows) for tap in range(len(rings))) for number in range(1, rows + 1)
    )
    if not any(map(any, levels)):
        raise CorruptFile(name, "the filter does nothing")
    return FilterLevels(levels, exponent)


@dataclass(frozen=True, eq=False)
class Filter(Part):
    section = SectionType.FILTER
    place = 10

    body: bytes = field(repr=False)
    levels: FilterLevels
    coefficients: Tensor

    def on_picture(self, x_hat: Tensor) -> Tensor:
        return apply_filter(x_hat, self.coefficients)


class FilterCoder(PartCoder):
    part = Filter

    def make(self, levels: FilterLevels) -> Filter:
        """With levels of zero it says nothing."""
        body = encode_filter(levels, RINGS) if any(map(any, levels.levels)) else b""
        return Filter(body, levels, levels.coefficients)

    def read(self, body: bytes, size: tuple[int, int]) -> Filter:
        levels = decode_filter(body, ROWS, RINGS)
        return Filter(body, levels, levels.coefficients)
