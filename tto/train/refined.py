"""Latents as a codec refines them, so that training sees what will be decoded **[ours]**.

    x ─ g_a ─ y ── a few steps on J, weights frozen ── y ── rounded ─┬─ walk ─ y_hat ─ g_s ─ x_hat
               └─ h_a ─ z ─ z_hat ────────────────────────────────────┘  └─ likelihoods

Gradients reach what a decoder has, to the right of the refined latents: g_s, the hyper-decoder, contexts, densities.

Shapes: `B` crops, `M` channels of y, `N` of z, `h w` size of y, `hz wz` size of z.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from base_models import BaseModel
from base_models.base import Walk, earlier_names, round_through
from base_models.entropy_models import GaussianConditional
from tto.refine.rate import gaussian_bits
from tto.train.objective import RateDistortion, bits

STEP_SIZE = 0.15  # quantization steps, falling to 0
BETAS = (0.8, 0.95)


class Latents(NamedTuple):
    """y [B, M, h, w] and z [B, N, hz, wz] in units of the quantization step, not rounded; no graph leads to them."""

    y: Tensor
    z: Tensor


class Rounded(NamedTuple):
    """A walk over y rounded for good; `u` [B, M, h, w] is what lies between it, before residual prediction, and μ."""

    walk: Walk
    u: Tensor


@torch.no_grad()
def refined_latents(
    model: BaseModel, objective: RateDistortion, images: Tensor, quality: Tensor, steps: int
) -> Latents:
    """Latents of images [B, 3, H, W] at quality [B] after `steps` of what a codec does to refine them.

    Straight-through descent of y on J, as much as tells a refined latent from one that is not.
    """
    y = model.analysis(images, quality)
    z = model.hyper_analysis(y, quality)
    pixels = images.shape[-2] * images.shape[-1]
    moved = y.clone().requires_grad_(True)
    adam = torch.optim.Adam([moved], betas=BETAS)
    for step in range(steps):
        with torch.enable_grad():
            found = rounded(model, Latents(moved, z), quality)
            x_hat = model.synthesis(found.walk.y_hat, quality).clamp(0, 1)
            J = bits_of(model, moved, found, quality) + pixels * objective.distortion(x_hat, images, quality)
            (moved.grad,) = torch.autograd.grad(J.sum(), moved)
        adam.param_groups[0]["lr"] = STEP_SIZE * (1.0 - step / steps)
        adam.step()
    return Latents(moved.detach(), z)


def rounded(model: BaseModel, latents: Latents, quality: Tensor) -> Rounded:
    """The walk over rounded latents; rounding has the gradient of the identity."""
    medians = model.z_medians()
    parts = model.split_y(latents.y)
    on_integers = model.grid == "integer"
    before_prediction = []

    def code_part(i: int, mu: Tensor, sigma: Tensor | None) -> Tensor:
        y_hat = round_through(parts[i]) if on_integers else round_through(parts[i] - mu) + mu
        before_prediction.append(y_hat)
        return y_hat

    z_hat = round_through(latents.z - medians) + medians
    walk = model.walk(z_hat, quality, code_part, round_through(latents.y) if on_integers else None)
    return Rounded(walk, model.join_y(before_prediction, (walk.mu.shape[-2], walk.mu.shape[-1])) - walk.mu)


def bits_of(model: BaseModel, y: Tensor, found: Rounded, quality: Tensor) -> Tensor:
    """Bits of y, [B]."""
    if found.walk.sigma is None:
        return bits(model.y_likelihood(y, found.walk, quality))
    smallest = cast(GaussianConditional, model.y_prior).smallest_scale
    return gaussian_bits(found.u, found.walk.sigma, smallest=smallest).flatten(1).sum(1)


class RefinedShare(nn.Module):
    """A base model in training that meets a share of its crops, drawn anew in each step, with refined latents."""

    def __init__(self, model: BaseModel, objective: RateDistortion, steps: int, share: float):
        super().__init__()
        self.model, self.objective = model, objective
        self.steps, self.share = steps, share

    def forward(self, images: Tensor, quality: Tensor) -> dict:
        """What the base model's forward pass gives."""
        chosen = torch.rand(len(images)) < self.share
        plain, refined = (mask.nonzero()[:, 0] for mask in (~chosen, chosen))
        outputs = []
        if len(plain):  # first: autocast remembers cast weights, and those of refinement have no gradient
            outputs.append(self.model(images[plain], quality[plain]))
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
                likelihoods["y"] = model.y_likelihood(latents.y, found.walk, quality)
            else:
                prior, y_hat = cast(GaussianConditional, model.y_prior), found.u + found.walk.mu
                likelihoods["y"] = prior.likelihood_at(found.u, found.walk.sigma)
                for name, (mu, sigma) in zip(earlier_names(model.predictions), found.walk.earlier, strict=False):
                    likelihoods[name] = prior.likelihood_at(y_hat - mu, sigma)
        return {"x_hat": model.synthesis(found.walk.y_hat, quality), "likelihoods": likelihoods}
