"""What a refinement holds against a reconstruction, differentiable, from float pixels in [0, 1].

`SquaredError` and `MultiScaleSSIM` are called with x̂ [1, 3, H, W], clamped to [0, 1], and give a scalar tensor.
`of_pixels` is the same for decoded uint8 pixels [H, W, 3], in float64. A quality's λ is for squared error;
`lambda_scale` times it is the λ for the distortion at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pytorch_msssim import ms_ssim as torch_ms_ssim
from torch import Tensor

from tto.errors import BadArgument
from tto.metrics import MS_SSIM_MIN_SIDE, ms_ssim

METRICS = ("mse", "ms-ssim")
MS_SSIM_LAMBDA = 1280.0
"""λ for 1 − MS-SSIM over λ for 255²·MSE at about the same rate: the mean ratio of CompressAI's two ladders."""


@dataclass(frozen=True)
class SquaredError:
    """255²·MSE; with `weights` [H, W] of mean 1 each pixel's error is multiplied by its weight."""

    original: np.ndarray
    weights: np.ndarray | None = None
    lambda_scale: float = 1.0

    def __call__(self, x_hat: Tensor) -> Tensor:
        error = (255 * (x_hat - self._target(x_hat))) ** 2
        if self.weights is not None:
            error = error * torch.as_tensor(self.weights, device=x_hat.device, dtype=x_hat.dtype)
        return error.mean()

    def of_pixels(self, decoded: np.ndarray) -> float:
        error = (self.original.astype(np.float64) - decoded) ** 2
        return float(np.mean(error if self.weights is None else error * self.weights[..., None]))

    def _target(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.original, device=like.device).permute(2, 0, 1)[None].to(like.dtype) / 255


@dataclass(frozen=True)
class MultiScaleSSIM:
    """1 − MS-SSIM (Wang 2003, five scales, RGB)."""

    original: np.ndarray
    lambda_scale: float = MS_SSIM_LAMBDA

    def __post_init__(self):
        if min(self.original.shape[:2]) < MS_SSIM_MIN_SIDE:
            raise BadArgument(f"MS-SSIM needs pictures of at least {MS_SSIM_MIN_SIDE} pixels a side; use --metric mse")

    def __call__(self, x_hat: Tensor) -> Tensor:
        target = torch.as_tensor(self.original, device=x_hat.device).permute(2, 0, 1)[None].to(x_hat.dtype)
        return 1 - torch_ms_ssim(255 * x_hat, target, data_range=255)

    def of_pixels(self, decoded: np.ndarray) -> float:
        return 1 - ms_ssim(self.original, decoded)


Distortion = SquaredError | MultiScaleSSIM


def make_distortion(original: np.ndarray, metric: str, weights: np.ndarray | None = None) -> Distortion:
    """The distortion of a picture uint8 [H, W, 3]. Raises `BadArgument`."""
    if metric not in METRICS:
        raise BadArgument(f"unknown metric {metric!r}: {' or '.join(METRICS)}")
    if metric == "ms-ssim":
        if weights is not None:
            raise BadArgument("a region of interest needs --metric mse")
        return MultiScaleSSIM(original)
    return SquaredError(original, weights)
