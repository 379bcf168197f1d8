"""A raster of positions coded along diagonals, so that a decoder has many of them at once.

Where each position is predicted from rows above and from columns up to `REACH` to the right of it, it can be coded
together with those that have the same column + `SLOPE`·row: what they all need lies on earlier diagonals.

Shapes: `h w` size of the raster, `N` = h·w positions, `n` those of one diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

REACH = 2
"""Rows above, and columns to either side, that the context of a position may cover."""
SLOPE = REACH + 1
"""Columns that a diagonal goes back for each row down."""


@lru_cache(maxsize=16)
def diagonals(height: int, width: int) -> tuple[Tensor, ...]:
    """Positions of an h × w raster, row by row numbered, with equal column + 3·row, by ascending row."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    numbers = (columns + SLOPE * rows).flatten()
    order, lengths = numbers.argsort(stable=True), torch.bincount(numbers).tolist()
    return order.split(cast(list[int], lengths))


def in_coding_order(x: Tensor) -> Tensor:
    """[B, C, h, w] → [B, C, N], diagonal after diagonal."""
    return x.flatten(2)[..., torch.cat(diagonals(*x.shape[-2:])).to(x.device)]


def in_raster_order(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Inverse of `in_coding_order`."""
    order = torch.cat(diagonals(*size)).argsort()
    return x[..., order.to(x.device)].unflatten(-1, tuple(size))


def split_diagonals(x: Tensor) -> list[Tensor]:
    """[B, C, h, w] → diagonals [B, C, n]."""
    return list(in_coding_order(x).split([len(part) for part in diagonals(*x.shape[-2:])], -1))


def join_diagonals(parts: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Inverse of `split_diagonals`."""
    return in_raster_order(torch.cat(list(parts), -1), size)
