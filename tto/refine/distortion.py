"""What a refinement holds against a reconstruction, differentiable, from float pixels in [0, 1].

A distortion is called with x̂ [1, 3, H, W], clamped to [0, 1], and gives a scalar tensor. `of_pixels` is the same for
decoded uint8 pixels [H, W, 3]. A quality's λ is for squared error; `lambda_scale` times it is the λ for the distortion
at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from pytorch_msssim import ms_ssim as torch_ms_ssim
from torch import Tensor

from tto.errors import BadArgument
from tto.image import Picture, load_picture
from tto.metrics import MS_SSIM_MIN_SIDE, mean_squared_error, ms_ssim
from tto.padding import to_tensor
from tto.perceptual import NETWORKS, Distance, load_distance
from tto.side.filter import LUMA, bands

if TYPE_CHECKING:
    from tto.image import PictureLike

METRICS = ("mse", "ms-ssim", *NETWORKS)
MS_SSIM_LAMBDA = 1280.0
"""λ for 1 − MS-SSIM over λ for 255²·MSE at about the same rate: the mean ratio of CompressAI's two ladders."""


class Against:
    """Of a picture `original` uint8 [H, W, 3], as tensors on `device`."""

    original: np.ndarray
    lambda_scale: float
    device: torch.device | str

    def curvature(self, x_hat: Tensor) -> float:
        """Second derivative, for one of x̂'s values, of the squared error that weighs as much: a scale, as J decides.

        Weights of pixels are left out.
        """
        return 2 * 255**2 / (x_hat.numel() * self.lambda_scale)

    @cached_property
    def levels(self) -> Tensor:
        """Uint8 [1, 3, H, W], made once."""
        return torch.tensor(self.original).permute(2, 0, 1)[None].contiguous().to(self.device)

    def target(self, rows: slice = slice(None)) -> Tensor:
        """Some rows of it, float32 [1, 3, H, W] in [0, 1]; not kept, as it takes four times the memory."""
        return self.levels[:, :, rows].float().div_(255)


class _MeanSquare(torch.autograd.Function):
    """`mse_loss` of x̂ and what `target` gives for some of its rows: few at a time, and nothing of it is kept."""

    @staticmethod
    def forward(ctx, x_hat: Tensor, target: Callable[[slice], Tensor]) -> Tensor:
        ctx.target = target
        ctx.save_for_backward(x_hat)
        squares = [(x_hat[:, :, rows] - target(rows).to(x_hat)).square_().sum() for rows, *_ in bands(*x_hat.shape[2:])]
        return torch.stack(squares).sum() / x_hat.numel()

    @staticmethod
    def backward(ctx, *upstream: Tensor) -> tuple[Tensor, None]:
        (x_hat,) = ctx.saved_tensors
        gradient = torch.empty_like(x_hat)
        for rows, *_ in bands(*x_hat.shape[2:]):
            torch.sub(x_hat[:, :, rows], ctx.target(rows).to(x_hat), out=gradient[:, :, rows])
        return gradient.mul_(2 / x_hat.numel()).mul_(*upstream), None


@dataclass(frozen=True)
class SquaredError(Against):
    """255²·MSE; with `weights` [H, W] of mean 1 each pixel's error is multiplied by its weight."""

    original: np.ndarray
    weights: np.ndarray | None = None
    lambda_scale: float = 1.0
    device: torch.device | str = "cpu"

    def __call__(self, x_hat: Tensor) -> Tensor:
        if self.weights is None:
            return 255**2 * cast(Tensor, _MeanSquare.apply(x_hat, self.target))
        return ((255 * (x_hat - self.target().to(x_hat))) ** 2 * self.pixel_weights.to(x_hat)).mean()

    @cached_property
    def pixel_weights(self) -> Tensor:
        """`weights` on `device`, float32."""
        return torch.tensor(self.weights, dtype=torch.float32, device=self.device)

    def of_pixels(self, decoded: np.ndarray) -> float:
        return mean_squared_error(self.original, decoded, self.weights)


@dataclass(frozen=True)
class MultiScaleSSIM(Against):
    """1 − MS-SSIM (Wang 2003, five scales, RGB)."""

    original: np.ndarray
    lambda_scale: float = MS_SSIM_LAMBDA
    device: torch.device | str = "cpu"

    def __post_init__(self):
        if min(self.original.shape[:2]) < MS_SSIM_MIN_SIDE:
            raise BadArgument(
                f"MS-SSIM needs pictures of at least {MS_SSIM_MIN_SIDE} pixels a side: use --metric mse (metric='mse')"
            )

    def __call__(self, x_hat: Tensor) -> Tensor:
        return 1 - torch_ms_ssim(255 * x_hat, self.levels.to(x_hat), data_range=255)

    def of_pixels(self, decoded: np.ndarray) -> float:
        return 1 - ms_ssim(self.original, decoded)


@dataclass(frozen=True)
class Perceived(Against):
    """Any differentiable `distance` of original and reconstruction; it is called on `device`.

    A call raises `BadArgument` where the distance gives anything but one value, or one without a gradient.
    """

    original: np.ndarray
    distance: Distance
    lambda_scale: float
    device: torch.device | str

    def __call__(self, x_hat: Tensor) -> Tensor:
        value = self.distance(self.target().to(x_hat), x_hat)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise BadArgument(f"the metric {name_of(self.distance)} does not give a tensor of one value")
        if torch.is_grad_enabled() and x_hat.requires_grad and not value.requires_grad:
            raise BadArgument(f"the metric {name_of(self.distance)} has no gradient: it must be differentiable")
        return value

    def of_pixels(self, decoded: np.ndarray) -> float:
        with torch.no_grad():
            return float(self(to_tensor(decoded).to(self.device)))


Distortion = SquaredError | MultiScaleSSIM | Perceived


def make_distortion(
    original: np.ndarray,
    metric: str | Distance,
    weights: np.ndarray | None = None,
    lambda_scale: float | None = None,
    device: torch.device | str = "cpu",
) -> Distortion:
    """The distortion of a picture uint8 [H, W, 3].

    `metric` is one of `METRICS`, or any differentiable function of (original, reconstruction), both [1, 3, H, W] in
    [0, 1] on `device`, that gives one value to make small. `lambda_scale` is known for the first two of `METRICS` and
    must be given for others. Raises `BadArgument` or `NotInstalled`.
    """
    if isinstance(metric, str) and metric not in METRICS:
        raise BadArgument(f"unknown metric {metric!r}: {', '.join(METRICS)}")
    if weights is not None and metric != "mse":
        raise BadArgument("a region of interest needs --metric mse (metric='mse')")
    if metric == "mse":
        return SquaredError(original, weights, device=device)
    if metric == "ms-ssim":
        return MultiScaleSSIM(original, device=device)
    if lambda_scale is None:
        raise BadArgument(f"the metric {name_of(metric)} has no usual weight: say which with --lambda (lambda_=)")
    distance = load_distance(metric) if isinstance(metric, str) else metric
    return Perceived(original, distance, lambda_scale, torch.device(device))


def name_of(metric: str | Distance) -> str:
    """One of `METRICS`, or what a function is called."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def load_weights(source: PictureLike, picture: Picture) -> np.ndarray:
    """A picture's brightness as weights [H, W] of mean 1 for `picture`. Raises `BadArgument` or as `load_picture`."""
    levels = load_picture(source, convert=True).rgb.astype(np.float64) @ np.array(LUMA)
    if levels.shape != picture.rgb.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (levels.shape, picture.rgb.shape)]
        raise BadArgument(f"the region of interest is {sizes[0]}, the picture {sizes[1]}")
    if not levels.any():
        raise BadArgument("the region of interest is black everywhere")
    return levels / levels.mean()
