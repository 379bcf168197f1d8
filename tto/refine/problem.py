"""What is minimized for one picture: J = R + λ·D of latents, rounded in whichever way.

Shapes: `M` channels of y, `N` of z, `h w` size of y, `H W` of the picture (not padded).

    z ─ round ─ z_hat ─┐                               ┌─ compensation ─ g_s ─ crop ─ transform ─ clamp ─ D
    y ─────────────── walk: round each slice at its μ ─┴─ ŷ after LRP
                        └─ R of the same rounded values
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tto.container import step_size
from tto.padding import crop
from tto.refine.distortion import Distortion
from tto.refine.rate import FactorizedBits, Rate, gaussian_bits
from tto.side_information import NO_SIDE, Side, SideCoder

Rounding = Callable[[Tensor], Tensor]


class Outcome(NamedTuple):
    """One evaluation. `bits` and `distortion` are scalars; `y`, `z` are the rounded latents before LRP.

    `y_hat` is after LRP, `x_hat` the clamped picture [1, 3, H, W]; `sigma` is not divided by the step.
    """

    bits: Tensor
    distortion: Tensor
    y: Tensor
    z: Tensor
    y_hat: Tensor
    x_hat: Tensor
    mu: Tensor
    sigma: Tensor


@dataclass(frozen=True)
class Problem:
    """One picture to refine with one model at one quality; `lambda_` weighs distortion in bits per pixel.

    `side` is in force in every evaluation, its bits included; `side_coder` is None for a model without side modules.
    `bfloat16`: whether evaluations that only give gradients run the network in it. `recompute`: whether the backward
    pass computes g_s anew, piece by piece, instead of remembering all of it.
    """

    model: nn.Module
    quality: float
    lambda_: float
    height: int
    width: int
    distortion: Distortion
    grayscale: bool = False
    side: Side = NO_SIDE
    side_coder: SideCoder | None = None
    bfloat16: bool = False
    recompute: bool = False

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @cached_property
    def _z_bits(self) -> FactorizedBits:
        return FactorizedBits(self.model.entropy_bottleneck)

    @cached_property
    def _medians(self) -> Tensor:
        return self.model.z_medians()

    def evaluate(self, y: Tensor, z: Tensor, qp: int, rounding: Rounding, rate: Rate = gaussian_bits) -> Outcome:
        """One walk and one synthesis of y [1, M, h, w] and z [1, N, h/4, w/4].

        `rounding` is called with z, then with each slice, in units of the step and centred; `rate` prices slices.
        """
        step = step_size(qp)
        slices = y.chunk(self.model.config.num_slices, 1)
        rounded, bits = [], []

        def code_slice(i: int, mu: Tensor, sigma: Tensor) -> Tensor:
            u = rounding((slices[i] - mu) / step)
            bits.append(rate(u, sigma / step).sum())
            rounded.append(u * step + mu)
            return rounded[-1]

        z_rounded = rounding(z - self._medians)
        bits.append(self._z_bits(z_rounded).sum())
        z_hat = z_rounded + self._medians
        walk = self.model.walk(z_hat, self.quality, code_slice)
        x_hat = self.picture(walk.y_hat)
        with torch.autocast(x_hat.device.type, enabled=False):  # differences of nearly equal pixels
            distortion = self.distortion(x_hat)
        total = sum(bits) + self.side.bits
        return Outcome(total, distortion, torch.cat(rounded, 1), z_hat, walk.y_hat, x_hat, walk.mu, walk.sigma)

    def for_gradients(self) -> torch.autocast:
        """Around an evaluation of which only gradients are used; candidates are always judged in float32."""
        return torch.autocast(self._medians.device.type, torch.bfloat16, enabled=self.bfloat16)

    def picture(self, y_hat: Tensor) -> Tensor:
        """ŷ → x̂ [1, 3, H, W] in [0, 1], gray where the picture is."""
        return self.side.on_picture(self.reconstruction(y_hat)).clamp(0, 1)

    def reconstruction(self, y_hat: Tensor) -> Tensor:
        """ŷ → x̂ [1, 3, H, W] before the transform, not clamped."""
        x_hat = self.model.synthesis(self.side.on_latent(y_hat), self.quality, self.recompute)
        x_hat = crop(x_hat, self.height, self.width).float()
        return x_hat.mean(1, keepdim=True).expand_as(x_hat) if self.grayscale else x_hat

    def z_symbols(self, z_hat: Tensor) -> Tensor:
        return (z_hat - self._medians).round()

    def cost(self, outcome: Outcome, rate_weight: float = 1.0) -> Tensor:
        """J in bits per pixel, its rate weighted."""
        return rate_weight * outcome.bits / self.pixels + self.lambda_ * outcome.distortion

    @torch.no_grad()
    def candidate(self, y: Tensor, z: Tensor, qp: int) -> Candidate:
        """Latents rounded for good, and their estimated figures."""
        return self.candidate_of(self.evaluate(y, z, qp, torch.round), qp)

    @torch.no_grad()
    def candidate_of(self, outcome: Outcome, qp: int) -> Candidate:
        """A candidate from an evaluation whose rounding was hard, its distortion that of 8-bit pixels."""
        levels = outcome.x_hat.mul(255).round()
        bpp, distortion = float(outcome.bits) / self.pixels, float(self.distortion(levels / 255))
        mse = float(((levels - torch.as_tensor(self.distortion.original).permute(2, 0, 1).to(levels)) ** 2).mean())
        psnr = 10 * math.log10(255**2 / max(mse, 1e-10))
        J = bpp + self.lambda_ * distortion
        return Candidate(outcome.y.detach(), outcome.z.detach(), qp, bpp, distortion, psnr, J, self.side)


@dataclass(frozen=True)
class Candidate:
    """Latents that round to the wanted symbols on any machine, with estimated figures.

    y is ŷ before LRP: each value lies in the middle of its cell, so that the coder's own μ, which differs from ours by
    float32's precision, gives the same symbols.
    """

    y: Tensor
    z: Tensor
    qp: int
    bpp: float
    distortion: float
    psnr: float
    J: float
    side: Side
