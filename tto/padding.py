"""Between pictures of any size and tensors of the sizes a network takes.

B batch, C channels, H W height and width in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def to_tensor(rgb: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].to(torch.float32).div(255).contiguous()


def to_uint8(x: Tensor) -> np.ndarray:
    """[1, 3, H, W] nominally in [0, 1] -> uint8 [H, W, 3], clamped and rounded to the nearest level."""
    levels = x.detach()[0].clamp(0, 1).mul(255).round().to(torch.uint8)  # [3, H, W]
    return np.ascontiguousarray(levels.permute(1, 2, 0).cpu().numpy())


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grow [B, C, H, W] at the right and bottom to multiples of `multiple`, by repeating the edge.

    Repeated edges cost fewer bits than zeros, which would be a sharp border.
    """
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Undo `pad_to_multiple`: the top-left [..., height, width]."""
    return x[..., :height, :width]
