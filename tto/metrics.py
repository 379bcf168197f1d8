"""What decoded 8-bit pixels are worth: PSNR, MS-SSIM, SSIMULACRA2.

Every function takes two uint8 arrays [H, W, 3], the original first, with values 0…255: the pixels a person
gets after decoding, never a network's floats.
"""

from __future__ import annotations

import math

import numpy as np

from tto.packages import require
from tto.ssimulacra2 import score

MS_SSIM_MIN_SIDE = 161
"""Shortest side in pixels on whose five scales an 11×11 window fits (more than 10·2⁴)."""
ROWS = 1024
"""Rows of a picture whose errors are in memory at once."""


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """10·log₁₀(255² / MSE) in dB, MSE over all pixels and the three channels; `inf` for identical images.

    Raises ValueError where the arrays are not two uint8 pictures [H, W, 3] of one size.
    """
    _check_pair(original, decoded)
    mse = mean_squared_error(original, decoded)
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def mean_squared_error(original: np.ndarray, decoded: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Of uint8 pixels [H, W, 3], in float64; `weights` [H, W] multiply each pixel's error."""
    total = 0.0
    for start in range(0, len(original), ROWS):
        rows = slice(start, start + ROWS)
        error = original[rows].astype(np.float64)
        error -= decoded[rows]
        error *= error
        if weights is not None:
            error *= weights[rows, :, None]
        total += float(np.sum(error))
    return total / original.size


def ms_ssim(original: np.ndarray, decoded: np.ndarray) -> float:
    """Multi-scale structural similarity in [0, 1] (Wang 2003), averaged over the three RGB channels.

    Computed by `pytorch-msssim` with its defaults (11×11 Gaussian window of sigma 1.5, five scales, data
    range 255), as the field reports it. An image with a side below 161 pixels has no five scales: the answer
    is `nan`, because any other number (fewer scales, enlargement, padding) would not be MS-SSIM.
    Raises ValueError where the arrays are not two uint8 pictures [H, W, 3] of one size.
    """
    _check_pair(original, decoded)
    if min(original.shape[:2]) < MS_SSIM_MIN_SIDE:
        return math.nan
    import torch
    from pytorch_msssim import ms_ssim as torch_ms_ssim

    pair = [_as_tensor(pixels) for pixels in (original, decoded)]
    with torch.inference_mode():
        return float(torch_ms_ssim(*pair, data_range=255))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM on a logarithmic scale: −10·log₁₀(1 − value) dB; `inf` for 1, `nan` for `nan`."""
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def ssimulacra2(original: np.ndarray, decoded: np.ndarray) -> float:
    """SSIMULACRA2 (Sneyers 2022): 100 for identical pictures, 70 about where most people see no harm, falling without
    end; `nan` for a picture with a side below 8 pixels.

    Computed by `tto.ssimulacra2`. Raises `NotInstalled` without the package of that name, and ValueError where the
    arrays are not two uint8 pictures [H, W, 3] of one size.
    """
    _check_pair(original, decoded)
    require("ssimulacra2", "bench")
    return score(original, decoded)


def _as_tensor(pixels: np.ndarray):
    import torch

    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()  # [1, 3, H, W]


def _check_pair(original: np.ndarray, decoded: np.ndarray) -> None:
    for pixels in (original, decoded):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"expected uint8 pixels [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    if original.shape != decoded.shape:
        raise ValueError(f"sizes differ: {list(original.shape[:2])} and {list(decoded.shape[:2])}")
