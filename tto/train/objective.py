"""What a stage minimizes: rate plus weighted distortion, per sample, over a range of qualities.

For a model with several qualities every sample has its own quality q and λ(q). Samples are weighted by λ^-0.5, or
another power, so that high qualities (whose losses are numerically large) do not drown the low ones, and the weights
are divided by their mean over the range of qualities.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from base_models.base import earlier_names
from tto.refine.distortion import MS_SSIM_LAMBDA
from tto.train.recipe import LossSettings


class Terms(NamedTuple):
    """Per sample, each [B]: the weighted loss and its two parts, bits per pixel of y and of z, and the mean squared
    error.
    """

    loss: Tensor
    rate: Tensor
    distortion: Tensor
    bpp_y: Tensor
    bpp_z: Tensor
    mse: Tensor


class Rated(Protocol):
    """What knows its qualities: a base model, alone or with side modules."""

    @property
    def qualities(self) -> int: ...

    def lambda_at(self, quality: Tensor, /) -> Tensor: ...


class RateDistortion:
    """Rate plus λ times distortion of a base model's output."""

    def __init__(self, settings: LossSettings, model: Rated):
        self.settings = settings
        self.qualities = model.qualities
        self.lambda_at = model.lambda_at
        range_of_qualities = torch.linspace(1.0, float(self.qualities), 512, dtype=torch.float64)
        self._mean_weight = self._weight(range_of_qualities).mean().item()

    def quality(self, position: Tensor) -> Tensor:
        """Positions 0…1 as qualities 1…Q."""
        return 1.0 + position * (self.qualities - 1)

    def __call__(self, output: dict, images: Tensor, quality: Tensor) -> Terms:
        """Terms of a forward pass: `output` of the model for `images` [B, 3, H, W] at `quality` [B]."""
        pixels = images.shape[-1] * images.shape[-2]
        likelihoods = output["likelihoods"]
        bpp_y = bits(likelihoods["y"]) / pixels
        bpp_z = bits(likelihoods["z"]) / pixels if "z" in likelihoods else torch.zeros_like(bpp_y)
        rate = self._weighted_bits(likelihoods) / pixels + bpp_z
        distortion = self.distortion(output["x_hat"], images, quality)
        return Terms(
            self._balanced(rate + distortion, quality),
            self._balanced(rate, quality),
            self._balanced(distortion, quality),
            bpp_y,
            bpp_z,
            mean_squared_error(output["x_hat"], images),
        )

    def _weighted_bits(self, likelihoods: dict[str, Tensor]) -> Tensor:
        """Of y, [B]; by all predictions that the stage weighs, in training, where the output has them."""
        weights = self.settings.rate_weights or (1.0,)
        names = [*earlier_names(len(weights)), "y"]
        if any(name not in likelihoods for name in names):
            return bits(likelihoods["y"])
        pairs = zip(weights, names, strict=True)
        return torch.stack([weight * bits(likelihoods[name]) for weight, name in pairs]).sum(0)

    def values(self, output: dict, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """The same by name; `bpp_z` only where there is a z, parts of the loss only where they are balanced."""
        values = self(output, images, quality)._asdict()
        left_out = set() if "z" in output["likelihoods"] else {"bpp_z"}
        left_out |= set() if self.settings.balance else {"rate", "distortion"}
        return {name: value for name, value in values.items() if name not in left_out}

    def distortion(self, x_hat: Tensor, images: Tensor, quality: Tensor) -> Tensor:
        """Distortion of x̂ [B, 3, H, W] times λ, in bits per pixel, [B]."""
        if self.settings.distortion == "mse":
            distortion = 255.0**2 * mean_squared_error(x_hat, images)
        else:
            distortion = MS_SSIM_LAMBDA * (1.0 - ms_ssim(x_hat.float(), images))
        return self.lambda_at(quality).to(distortion) * distortion

    def weighted(self, distortion: Tensor, quality: Tensor) -> Tensor:
        """The part of the loss that comes from a distortion [B] at `quality` [B]."""
        return self._balanced(self.lambda_at(quality).to(distortion) * distortion, quality)

    def _balanced(self, loss: Tensor, quality: Tensor) -> Tensor:
        return loss * (self._weight(quality) / self._mean_weight).to(loss)

    def _weight(self, quality: Tensor) -> Tensor:
        return self.lambda_at(quality).pow(-self.settings.quality_power)


def bits(likelihoods: Tensor) -> Tensor:
    """Bits that symbols of these likelihoods cost, per sample: [B, …] → [B]."""
    return -likelihoods.float().log().flatten(1).sum(1) / math.log(2.0)


def mean_squared_error(x_hat: Tensor, images: Tensor) -> Tensor:
    """Per sample, [B]; not clamped."""
    return (x_hat.float() - images).square().mean((1, 2, 3))


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM per sample, [B]; images [B, 3, H, W] in [0, 1], sides above 160."""
    import pytorch_msssim

    return pytorch_msssim.ms_ssim(a, b, data_range=1.0, size_average=False)
