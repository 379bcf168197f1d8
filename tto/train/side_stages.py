"""The four stages that train side modules on a frozen base (002 §2): what each one does in a step.

    ddt                x_hat + K·x_hat towards x
    msc                g_s(y_hat + decoder(encoder(y − y_hat))) towards x, nothing quantized
    codebook-warm-up   codes follow the encoder's outputs: k-means, then running means; the networks stay
    codebook           encoder, decoder and codes together, at random masks **[ours]**

Distortion is weighed as in the training of a base: λ·255²·MSE in bits per pixel, times λ^-0.5, so that no quality
drowns another. In the last stage codes are chosen as a codec chooses them, by how much they lower the distortion.

Shapes: `B` crops, `M` channels of y, `K` codes, `h w` size of y. A stage maps images [B, 3, H, W] and qualities [B]
to named values [B]; `loss` is minimized.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tto.modules.ddt import apply_transform
from tto.train.objective import RateDistortion
from tto.train.recipe import LossSettings
from tto.train.side_model import BaseWithSide

COMMITMENT = 0.05
MASKED = (0.02, 0.4)  # part of the positions of a crop that a random mask leaves
KEPT = 0.7  # part of the best positions that it keeps
STEADY = 0.98  # of running means


class Reconstruction(NamedTuple):
    """x̂ [B, 3, H, W] without and with all side information, not clamped; codes int64 [B, h, w] where there are any."""

    before: Tensor
    after: Tensor
    codes: Tensor | None = None


class Choice(NamedTuple):
    """The best code of every position, int64 [B, h, w], and the bits of distortion that it saves by prediction."""

    codes: Tensor
    saved: Tensor


class SideStage(nn.Module):
    """What the stages share."""

    def __init__(self, model: BaseWithSide, loss: LossSettings):
        super().__init__()
        self.model = model
        self.objective = RateDistortion(loss, model)

    def forward(self, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """One step's values."""
        found = self.reconstruct(images, quality)
        return self.terms(images, quality, found.before, found.after)

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        """Pictures with the stage's own side information everywhere."""
        raise NotImplementedError

    def quality(self, position: Tensor) -> Tensor:
        """Positions 0…1 as qualities 1…Q."""
        return self.objective.quality(position)

    def values(self, output: dict, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """What `forward` gave: it knows its own loss."""
        return output

    def terms(self, images: Tensor, quality: Tensor, before: Tensor, after: Tensor) -> dict[str, Tensor]:
        mse, mse_before = (squared_error(x_hat, images) for x_hat in (after, before))
        gained = 10.0 * (mse_before / mse.detach()).log10()
        return {"loss": self.objective.weighted(255.0**2 * mse, quality), "mse": mse, "gained_db": gained}


class DDTStage(SideStage):
    """The data-dependent transform."""

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        with torch.no_grad():
            before = self.model.base.synthesis(self.model.quantized(images, quality).y_hat, quality)
        ddt = self.model.ddt
        return Reconstruction(before, apply_transform(before, ddt.decoder(ddt.encoder(images)).float()))


class MSCStage(SideStage):
    """Encoder and decoder of the compensation, with no codebook between them."""

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        base, msc = self.model.base, self.model.msc
        latents = self.model.quantized(images, quality)
        with torch.no_grad():
            before = base.synthesis(latents.y_hat, quality)
        compensation = msc.decoder(msc.encoder(latents.residual)).float()
        return Reconstruction(before, base.synthesis(latents.y_hat + compensation, quality))


class WarmUpStage(SideStage):
    """The first codebook. Codes are running means and have no gradient."""

    @torch.no_grad()
    def forward(self, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        model = self.model
        features = model.msc.encoder(model.quantized(images, quality).residual).float()
        codes, indexes, _ = model.quantizer(features)
        model.msc.codebook.copy_(model.quantizer.codebook)
        model.count_codes(indexes.flatten())
        error = (features - codes).square().mean((1, 2, 3))
        return {"loss": error, "explained": 1.0 - error / features.square().mean((1, 2, 3))}

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        base, msc = self.model.base, self.model.msc
        latents = self.model.quantized(images, quality)
        codes, indexes, _ = self.model.quantizer(msc.encoder(latents.residual).float())
        after = base.synthesis(latents.y_hat + msc.decoder(codes).float(), quality)
        return Reconstruction(base.synthesis(latents.y_hat, quality), after, indexes)


class CodebookStage(SideStage):
    """Codes for what pays: each position takes the code that lowers the distortion most, by its slope there."""

    def forward(self, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        model, msc = self.model, self.model.msc
        latents = model.quantized(images, quality)
        before, slope = self.slope(latents.y_hat, images, quality)
        choice = self.choose(slope)
        mask = random_mask(choice.saved)
        features = msc.encoder(latents.residual).float()
        codes = msc.codebook[choice.codes].permute(0, 3, 1, 2)
        compensation = msc.decoder(codes + features - features.detach()).float() * mask
        after = model.base.synthesis(latents.y_hat + compensation, quality)
        terms = self.terms(images, quality, before, after)
        model.count_codes(choice.codes[mask[:, 0] > 0])
        self._learn_curvature(slope, compensation.detach(), terms, before, images, quality)
        distance = ((features - codes.detach()).square() * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
        terms["loss"] = terms["loss"] + COMMITMENT * distance / features.shape[1]
        return terms

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        latents = self.model.quantized(images, quality)
        before, slope = self.slope(latents.y_hat, images, quality)
        codes = self.choose(slope).codes
        return Reconstruction(before, self.compensated(latents.y_hat, codes, torch.ones_like(codes), quality), codes)

    def compensated(self, y_hat: Tensor, codes: Tensor, mask: Tensor, quality: Tensor) -> Tensor:
        """x̂ with these codes where mask [B, h, w] is 1."""
        compensation = self.model.msc.compensations().float()[codes].permute(0, 3, 1, 2) * mask[:, None]
        return self.model.base.synthesis(y_hat + compensation, quality)

    def slope(self, y_hat: Tensor, images: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """x̂ of y_hat, and the gradient of the distortion in bits of a picture at y_hat [B, M, h, w]."""
        with torch.enable_grad():
            y_hat = y_hat.detach().requires_grad_(True)
            x_hat = self.model.base.synthesis(y_hat, quality)
            (slope,) = torch.autograd.grad(self.distortion_bits(x_hat, images, quality).sum(), y_hat)
        return x_hat.detach(), slope

    def distortion_bits(self, x_hat: Tensor, images: Tensor, quality: Tensor) -> Tensor:
        """λ·255²·MSE of each picture in bits, [B]."""
        weight = self.objective.lambda_at(quality).to(x_hat)
        return weight * 255.0**2 * squared_error(x_hat, images) * images.shape[-1] * images.shape[-2]

    @torch.no_grad()
    def choose(self, slope: Tensor) -> Choice:
        """By slope and mean curvature, less what a code costs."""
        table = self.model.msc.compensations().float()
        linear = torch.einsum("bmhw,km->bhwk", slope, table)
        quadratic = 0.5 * self.model.curvature * table.square().sum(1)
        saved, codes = (-linear - quadratic - self.model.code_bits()).max(-1)
        return Choice(codes, saved)

    def _learn_curvature(
        self, slope: Tensor, step: Tensor, terms: dict, before: Tensor, images: Tensor, quality: Tensor
    ) -> None:
        """What distortion gained less than its slope said, as a curvature."""
        bits = self.distortion_bits(before, images, quality)
        change = bits * (terms["mse"].detach() / squared_error(before, images) - 1.0)
        missing = (change - (slope * step).sum((1, 2, 3))).sum()
        found = 2.0 * missing / step.square().sum().clamp(min=1e-6)
        self.model.curvature.lerp_(found.clamp(0.1, 1000.0), 1.0 - STEADY)


STAGES = {"ddt": DDTStage, "msc": MSCStage, "codebook-warm-up": WarmUpStage, "codebook": CodebookStage}


def random_mask(saved: Tensor) -> Tensor:
    """A mask [B, 1, h, w] of some of the positions that save most; saved is [B, h, w]."""
    ranks = saved.flatten(1).argsort(1, descending=True).argsort(1).view_as(saved) / saved[0].numel()
    low, high = MASKED
    part = low + (high - low) * torch.rand(len(saved), 1, 1, device=saved.device) ** 2
    kept = torch.rand_like(saved) < KEPT
    return ((ranks < part) & kept)[:, None].to(saved.dtype)


def squared_error(x_hat: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of each picture, [B]."""
    return (x_hat.float() - images).square().mean((1, 2, 3))
