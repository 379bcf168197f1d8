"""Between pictures of any size and tensors of the sizes a network takes.

B batch, C channels, H W height and width in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROWS = 256
"""Rows that are converted at a time."""


def to_tensor(rgb: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    pixels = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
    return torch.empty(pixels.shape, dtype=torch.float32).copy_(pixels).div_(255)


def to_uint8(x: Tensor) -> np.ndarray:
    """[1, 3, H, W] nominally in [0, 1] -> uint8 [H, W, 3], clamped and rounded to the nearest level."""
    levels = torch.empty(*x.shape[2:], 3, dtype=torch.uint8)
    for rows, of_rows in zip(levels.split(ROWS), x.detach()[0].split(ROWS, 1), strict=True):
        rows.copy_(of_rows.clamp(0, 1).mul(255).round().permute(1, 2, 0))
    return levels.numpy()


def padded_size(height: int, width: int, multiple: int) -> tuple[int, int]:
    """What `pad_to_multiple` makes of a picture's sides."""
    return height + -height % multiple, width + -width % multiple


def pad_to_multiple(rgb: np.ndarray, multiple: int) -> np.ndarray:
    """Grow [H, W, 3] at the right and bottom to multiples of `multiple`, by repeating the edge.

    Repeated edges cost fewer bits than zeros, which would be a sharp border.
    """
    height, width = rgb.shape[:2]
    return np.pad(rgb, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode="edge")


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Undo `pad_to_multiple`: the top-left [..., height, width]."""
    return x[..., :height, :width]
