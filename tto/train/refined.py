"""Latents as a codec refines them, so that training sees what will be decoded **[ours]**.

    x ─ g_a ─ y ── a few steps on J, weights frozen ── y ── rounded ─┬─ walk ─ y_hat ─ g_s ─ x_hat
               └─ h_a ─ z ─ z_hat ────────────────────────────────────┘  └─ likelihoods

The steps are those that every effort begins with, of y alone. With weights `55d7d68e9ec0a47c` of `dcae-small`, eight of
them change the estimated J of two photographs' 256² by −2.1 % at q=3 and −7.1 % at q=6, six by −1.4 % and −6.5 %. Plain
straight-through steps, as they were before, made it worse: eight by 42 % and 5 %, six by 56 % and 11 %.

Gradients reach what a decoder has, to the right of the refined latents: g_s, the hyper-decoder, contexts, densities.

Shapes: `B` crops, `M` channels of y, `N` of z, `h w` size of y, `hz wz` size of z.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from base_models import BaseModel
from base_models.base import Walk, earlier_names, round_through
from base_models.entropy_models import FactorizedPrior, GaussianConditional
from tto.refine.presets import DESCENT
from tto.refine.rate import Rate, gaussian_bits
from tto.train.objective import RateDistortion, bits

Rounding = Callable[[Tensor], Tensor]
"""Of values in units of the quantization step, centred on what rounding is centred on."""


class Latents(NamedTuple):
    """y [B, M, h, w] and z [B, N, hz, wz] in units of the quantization step, not rounded; no graph leads to them."""

    y: Tensor
    z: Tensor


class Rounded(NamedTuple):
    """A walk over y after rounding; `u` [B, M, h, w] is what lies between it, before residual prediction, and μ."""

    walk: Walk
    u: Tensor


@torch.no_grad()
def refined_latents(
    model: BaseModel, objective: RateDistortion, images: Tensor, quality: Tensor, steps: int
) -> Latents:
    """Latents of images [B, 3, H, W] at quality [B] after `steps` of what a codec does first to refine them.

    The descent on J that every effort begins with, of y alone.
    """
    y = model.analysis(images, quality)
    z = model.hyper_analysis(y, quality)
    pixels = images.shape[-2] * images.shape[-1]
    moved = y.to(torch.float32, copy=True).requires_grad_(True)
    adam = DESCENT.optimizer([moved])
    for done in (step / max(steps - 1, 1) for step in range(steps)):
        rounding = partial(DESCENT.relaxation, temperature=DESCENT.temperature(done), generator=torch.default_generator)
        with torch.enable_grad():
            found = rounded(model, Latents(moved, z), quality, rounding)
            x_hat = model.synthesis(found.walk.y_hat, quality).clamp(0, 1)
            y_bits = bits_of(model, found, DESCENT.rate)
            J = y_bits + pixels * objective.distortion(x_hat, images, quality)
            (moved.grad,) = torch.autograd.grad(J.sum(), moved)
        adam.param_groups[0]["lr"] = DESCENT.step_size(done)
        adam.step()
    return Latents(moved.detach(), z)


def rounded(model: BaseModel, latents: Latents, quality: Tensor, rounding: Rounding = round_through) -> Rounded:
    """The walk over rounded latents. z is rounded for good, y by `rounding`: with the gradient of the identity where
    that is not given.
    """
    medians = model.z_medians()
    parts = model.split_y(latents.y)
    on_integers = model.grid == "integer"
    before_prediction = []

    def code_part(i: int, mu: Tensor, sigma: Tensor | None) -> Tensor:
        y_hat = rounding(parts[i]) if on_integers else rounding(parts[i] - mu) + mu
        before_prediction.append(y_hat)
        return y_hat

    z_hat = round_through(latents.z - medians) + medians
    walk = model.walk(z_hat, quality, code_part, rounding(latents.y) if on_integers else None)
    return Rounded(walk, model.join_y(before_prediction, (walk.mu.shape[-2], walk.mu.shape[-1])) - walk.mu)


def bits_of(model: BaseModel, found: Rounded, rate: Rate = gaussian_bits) -> Tensor:
    """Bits of y, [B]; `rate` prices values that need not be integers."""
    if found.walk.sigma is None:
        return bits(cast(FactorizedPrior, model.y_prior).likelihood_at(found.u + found.walk.mu))
    smallest = cast(GaussianConditional, model.y_prior).smallest_scale
    mean = found.walk.mu if model.grid == "integer" else 0.0
    return rate(found.u + mean, found.walk.sigma, mean, smallest).flatten(1).sum(1)


class RefinedShare(nn.Module):
    """A base model in training that meets a share of its crops, drawn anew in each step, with refined latents."""

    def __init__(self, model: BaseModel, objective: RateDistortion, steps: int, share: float):
        super().__init__()
        self.model, self.objective = model, objective
        self.steps, self.share = steps, share
        self.forward_plain = model.forward  # of crops that are not refined

    def forward(self, images: Tensor, quality: Tensor) -> dict:
        """What the base model's forward pass gives."""
        chosen = torch.rand(len(images)) < self.share
        plain, refined = (mask.nonzero()[:, 0] for mask in (~chosen, chosen))
        outputs = []
        if len(plain):  # first: autocast remembers cast weights, and those of refinement have no gradient
            outputs.append(self.forward_plain(images[plain], quality[plain]))
        if len(refined):
            outputs.append(self.on_refined(images[refined], quality[refined]))
        back = torch.cat([plain, refined]).argsort()
        names = outputs[0]["likelihoods"]
        return {
            "x_hat": torch.cat([output["x_hat"] for output in outputs])[back],
            "likelihoods": {
                name: torch.cat([output["likelihoods"][name] for output in outputs])[back] for name in names
            },
        }

    def on_refined(self, images: Tensor, quality: Tensor) -> dict:
        """The same for crops whose latents are refined first; y has the likelihoods of its symbols."""
        model = self.model
        latents = refined_latents(model, self.objective, images, quality, self.steps)
        found = rounded(model, latents, quality)
        likelihoods = {}
        with torch.autocast(images.device.type, enabled=False):
            if model.z_prior is not None:
                likelihoods["z"] = model.z_likelihood(latents.z, quality)
            if found.walk.sigma is None:
                likelihoods["y"] = cast(FactorizedPrior, model.y_prior).likelihood_at(found.u + found.walk.mu)
            else:
                prior, y_hat = cast(GaussianConditional, model.y_prior), found.u + found.walk.mu
                likelihoods["y"] = prior.likelihood_at(found.u, found.walk.sigma)
                for name, (mu, sigma) in zip(earlier_names(model.predictions), found.walk.earlier, strict=False):
                    likelihoods[name] = prior.likelihood_at(y_hat - mu, sigma)
        return {"x_hat": model.synthesis(found.walk.y_hat, quality), "likelihoods": likelihoods}
