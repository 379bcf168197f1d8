"""Distortion of decoded 8-bit pixels: PSNR, MS-SSIM and (optionally) LPIPS.

Every function takes two uint8 arrays [H, W, 3], the original first, with values 0…255: the pixels a person
gets after decoding, never a network's floats.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

MS_SSIM_MIN_SIDE = 161
"""Shortest side in pixels on whose five scales an 11×11 window fits (more than 10·2⁴)."""


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """10·log₁₀(255² / MSE) in dB, MSE over all pixels and the three channels; `inf` for identical images.

    Raises ValueError where the arrays are not two uint8 pictures [H, W, 3] of one size.
    """
    _check_pair(original, decoded)
    difference = original.astype(np.float64) - decoded.astype(np.float64)
    mse = float(np.mean(difference * difference))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the package uses torch.jit.script
        from pytorch_msssim import ms_ssim as torch_ms_ssim
    pair = [_as_tensor(pixels) for pixels in (original, decoded)]
    with torch.inference_mode():
        return float(torch_ms_ssim(*pair, data_range=255))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM on a logarithmic scale: −10·log₁₀(1 − value) dB; `inf` for 1, `nan` for `nan`."""
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def load_lpips() -> Callable[[np.ndarray, np.ndarray], float]:
    """The LPIPS distance (Zhang 2018, version 0.1, AlexNet), 0 for identical images.

    Loads its network once and returns a function of (original, decoded). Raises ImportError without the
    `lpips` package, which fetches AlexNet's weights on first use.
    """
    import lpips
    import torch

    network = lpips.LPIPS(net="alex", verbose=False).eval()

    def distance(original: np.ndarray, decoded: np.ndarray) -> float:
        _check_pair(original, decoded)
        pair = [_as_tensor(pixels) / 127.5 - 1 for pixels in (original, decoded)]  # LPIPS wants [-1, 1]
        with torch.inference_mode():
            return float(network(*pair))

    return distance


def _as_tensor(pixels: np.ndarray):
    import torch

    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()  # [1, 3, H, W]


def _check_pair(original: np.ndarray, decoded: np.ndarray) -> None:
    for pixels in (original, decoded):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"expected uint8 pixels [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    if original.shape != decoded.shape:
        raise ValueError(f"sizes differ: {list(original.shape[:2])} and {list(decoded.shape[:2])}")
