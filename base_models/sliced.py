"""Models whose y is coded in slices of channels, for several rates by gains or for one.

Shapes: as in `base`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import LatentShapes, Memory, Quality, full_precision
from .entropy_models import FactorizedPrior, GaussianConditional
from .initialization import FittedModel


class Gains(nn.Module):
    """One gain per quality and channel, applied before quantization and undone after it **[ours]**.

    Qualities 1…Q are real numbers; between two of them gains are interpolated geometrically.
    """

    not_matrices = ("log_gain",)

    def __init__(self, lambdas: tuple[float, ...], channels: int):
        super().__init__()
        middle = math.exp(sum(map(math.log, lambdas)) / len(lambdas))
        start = torch.tensor([0.5 * math.log(value / middle) for value in lambdas])
        self.log_gain = nn.Parameter(start[:, None].repeat(1, channels))

    def forward(self, quality: Tensor) -> Tensor:
        """Quality [B] → gain [B, C, 1, 1]."""
        position = (quality - 1).clamp(0, len(self.log_gain) - 1)
        low = position.floor().clamp(max=len(self.log_gain) - 2).long()
        part = (position - low).to(self.log_gain)[:, None]
        log_gain = self.log_gain[low] * (1 - part) + self.log_gain[low + 1] * part
        return log_gain.exp()[:, :, None, None]


class SlicedModel(FittedModel):
    """What models have in common whose parts are slices of channels, with a hyper-latent and optional gains.

    A subclass has the attributes `g_a`, `g_s`, `h_a`, `entropy_bottleneck`, `gaussian_conditional` and, where its
    configuration has several qualities, `gain_y` and `gain_z` (see `make_entropy_models`); `slice_channels` are the
    widths of its slices.
    """

    slice_channels: tuple[int, ...]
    z_stride: ClassVar[int] = 64

    def make_entropy_models(self, y_channels: int, z_channels: int) -> None:
        """Entropy models, and gains if there are several qualities."""
        self.entropy_bottleneck = FactorizedPrior(z_channels)
        self.gaussian_conditional = GaussianConditional()
        lambdas = self.config.lambdas
        if len(lambdas) > 1:
            self.gain_y = Gains(lambdas, y_channels)
            self.gain_z = Gains((1.0,) * len(lambdas), z_channels)

    def analysis(self, x: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        self.check_sides(x)
        (y,) = self.bounded("g_a", self.g_a, (x,), memory)
        return full_precision(y) * self.gain("gain_y", quality, x)

    def hyper_analysis(self, y: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        (z,) = self.bounded("h_a", self.h_a, (y,), memory)
        return full_precision(z) * self.gain("gain_z", quality, y)

    def synthesis(self, y_hat: Tensor, quality: Quality = 1.0, memory: Memory = None) -> Tensor:
        (x_hat,) = self.bounded("g_s", self.g_s, (y_hat / self.gain("gain_y", quality, y_hat),), memory)
        return full_precision(x_hat)

    @property
    def slices(self) -> int:
        return len(self.slice_channels)

    def split_y(self, y: Tensor) -> list[Tensor]:
        return list(y.split(self.slice_channels, 1))

    def join_y(self, parts: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        return torch.cat(list(parts), 1)

    def latent_shapes(self, height: int, width: int) -> LatentShapes:
        height, width = (-(-side // self.stride) * self.stride for side in (height, width))
        return LatentShapes(
            (sum(self.slice_channels), height // self.y_stride, width // self.y_stride),
            (len(self.entropy_bottleneck.quantiles), height // self.z_stride, width // self.z_stride),
        )

    @property
    def z_prior(self) -> FactorizedPrior:
        return self.entropy_bottleneck

    @property
    def y_prior(self) -> GaussianConditional:
        return self.gaussian_conditional

    def gain(self, name: str, quality: Quality, like: Tensor) -> Tensor | float:
        """`gain_y` or `gain_z` [B, C, 1, 1] at a quality; 1 for a model of one quality."""
        if self.qualities == 1:
            return 1.0
        return getattr(self, name)(torch.as_tensor(quality).reshape(-1).to(torch.float64))
