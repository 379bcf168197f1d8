"""The four stages that train side modules on a frozen base (Kuang (CGOO), supplement §2): what each one does in a step.

    ddt                x_hat + K·x_hat towards x
    msc                g_s(y_hat + decoder(encoder(step))) towards x, nothing quantized
    codebook-warm-up   codes follow the encoder's outputs: k-means, then running means; the networks stay **[ours]**
    codebook           encoder, decoder and codes together, at random masks **[ours]**

Distortion is weighed as in the training of a base: λ·255²·MSE in bits per pixel, times λ^-0.5 by default, so that no
quality drowns another. The encoder is given the step from y_hat that should lower the distortion most (gradient over
mean curvature); the published y − y_hat says little of latents that were refined. Codes are chosen as a codec chooses
them, by how much they lower the distortion.

Shapes: `B` crops, `M` channels of y, `K` codes, `h w` size of y. A stage maps images [B, 3, H, W] and qualities [B]
to named values [B]; `loss` is minimized.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tto.side.transform import apply_transform, best_matrix
from tto.train.objective import RateDistortion
from tto.train.recipe import LossSettings
from tto.train.refined import bits_of, refined_latents, rounded
from tto.train.side_model import BaseWithSide, over_processes

COMMITMENT = 0.05
MASK_BITS = 4.0  # of a position that is on
ALWAYS = 0.05  # part of the positions that may be on even where they do not pay
KEPT = 0.8  # part of what may be on that a random mask leaves
STEADY = 0.95  # of running means
CURVATURES = (0.1, 1000.0)  # bits per squared step


class Reconstruction(NamedTuple):
    """x̂ [B, 3, H, W] without and with all side information, not clamped; codes int64 [B, h, w] where there are any."""

    before: Tensor
    after: Tensor
    codes: Tensor | None = None


class Choice(NamedTuple):
    """The best code of every position, int64 [B, h, w], and the bits of distortion that it saves by prediction."""

    codes: Tensor
    saved: Tensor


class Quantized(NamedTuple):
    """Latents after rounding, [B, M, h, w] in units of the quantization step, and their bits [B]."""

    y_hat: Tensor
    bits: Tensor


class Place(NamedTuple):
    """Latents where compensation is looked for, the colour matrix [B, 3, 3] that is in place, and x̂ with it.

    `slope` [B, M, h, w] is the gradient of the distortion there, in bits of a picture.
    """

    latents: Quantized
    quality: Tensor
    matrix: Tensor
    before: Tensor
    slope: Tensor


class SideStage(nn.Module, ABC):
    """What the stages share."""

    def __init__(self, model: BaseWithSide, loss: LossSettings, refine_steps: int = 0):
        super().__init__()
        self.model = model
        self.objective = RateDistortion(loss, model)
        self.refine_steps = refine_steps

    def forward(self, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """One step's values."""
        found = self.reconstruct(images, quality)
        return self.terms(images, quality, found.before, found.after)

    @abstractmethod
    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        """Pictures with the stage's own side information everywhere."""

    @torch.no_grad()
    def quantized(self, images: Tensor, quality: Tensor) -> Quantized:
        """Latents of images [B, 3, H, W] as they are coded: side information is for what refinement leaves over."""
        base = self.model.base
        latents = refined_latents(base, self.objective, images, quality, self.refine_steps)
        found = rounded(base, latents, quality)
        return Quantized(found.walk.y_hat, bits_of(base, found))

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
            before = self.model.base.synthesis(self.quantized(images, quality).y_hat, quality)
        ddt = self.model.ddt
        return Reconstruction(before, apply_transform(before, ddt.decoder(ddt.encoder(images)).float()))


class CompensationStage(SideStage):
    """What the stages of MSC share: where a code may be put, and which."""

    def place(self, images: Tensor, quality: Tensor) -> Place:
        """Latents with the colours set right first, which is cheaper than codes."""
        latents = self.quantized(images, quality)
        with torch.enable_grad():
            y_hat = latents.y_hat.detach().requires_grad_(True)
            x_hat = self.model.base.synthesis(y_hat, quality)
            matrix = best_matrix(x_hat.detach(), images)
            before = apply_transform(x_hat, matrix)
            (slope,) = torch.autograd.grad(self.distortion_bits(before, images, quality).sum(), y_hat)
        return Place(latents, quality, matrix, before.detach(), slope)

    def features(self, place: Place) -> Tensor:
        """What the encoder says of the step that would lower distortion most, [B, M, h, w]."""
        return self.model.msc.encoder(self.newton_step(place)).float()

    def newton_step(self, place: Place) -> Tensor:
        return -place.slope / self.model.curvature

    def compensated(self, place: Place, compensation: Tensor, codes: Tensor | None = None) -> Reconstruction:
        """Pictures without and with a compensation [B, M, h, w]."""
        x_hat = self.model.base.synthesis(place.latents.y_hat + compensation, place.quality)
        return Reconstruction(place.before, apply_transform(x_hat, place.matrix), codes)

    def distortion_bits(self, x_hat: Tensor, images: Tensor, quality: Tensor) -> Tensor:
        """λ·255²·MSE of each picture in bits, [B]."""
        weight = self.objective.lambda_at(quality).to(x_hat)
        return weight * 255.0**2 * squared_error(x_hat, images) * images.shape[-1] * images.shape[-2]

    def look_up(self, codes: Tensor) -> Tensor:
        """Codes [B, h, w] → compensation [B, M, h, w]."""
        return self.model.msc.compensations().float()[codes].permute(0, 3, 1, 2)

    @torch.no_grad()
    def choose(self, place: Place) -> Choice:
        """By slope and mean curvature, less what a code costs."""
        table = self.model.msc.compensations().float()
        linear = torch.einsum("bmhw,km->bhwk", place.slope, table).float()
        quadratic = 0.5 * self.model.curvature * table.square().sum(1)
        saved, codes = (-linear - quadratic - self.model.code_bits()).max(-1)
        return Choice(codes, saved)


class MSCStage(CompensationStage):
    """Encoder and decoder of the compensation, with no codebook between them."""

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        place = self.place(images, quality)
        return self.compensated(place, self.model.msc.decoder(self.features(place)).float())


class WarmUpStage(CompensationStage):
    """The first codebook. Codes are running means and have no gradient."""

    @torch.no_grad()
    def forward(self, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        features = self.features(self.place(images, quality))
        codes, indexes, _ = self.model.quantizer(features)
        self.model.msc.codebook.copy_(self.model.quantizer.codebook)
        self.model.count_codes(indexes.flatten())
        error = (features - codes).square().mean((1, 2, 3))
        return {"loss": error, "explained": 1.0 - error / features.square().mean((1, 2, 3))}

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        place = self.place(images, quality)
        codes, indexes, _ = self.model.quantizer(self.features(place))
        return self.compensated(place, self.model.msc.decoder(codes).float(), indexes)


class CodebookStage(CompensationStage):
    """Codes for what pays: each position takes the code that lowers the distortion most, by its slope there."""

    def forward(self, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        msc, place = self.model.msc, self.place(images, quality)
        choice = self.choose(place)
        mask = random_mask(choice.saved)
        features = self.features(place)
        codes = msc.codebook[choice.codes].permute(0, 3, 1, 2)
        compensation = msc.decoder(codes + features - features.detach()).float() * mask
        found = self.compensated(place, compensation)
        self.model.count_codes(choice.codes[mask[:, 0] > 0])
        self._learn_curvature(place, compensation.detach(), found, images)
        distance = ((features - codes.detach()).square() * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
        terms = self.terms(images, quality, found.before, found.after)
        terms["loss"] = terms["loss"] + COMMITMENT * distance / features.shape[1]
        return terms

    def reconstruct(self, images: Tensor, quality: Tensor) -> Reconstruction:
        place = self.place(images, quality)
        codes = self.choose(place).codes
        return self.compensated(place, self.look_up(codes), codes)

    def _learn_curvature(self, place: Place, step: Tensor, found: Reconstruction, images: Tensor) -> None:
        """What distortion fell less than its slope said, as a curvature."""
        pictures = (found.after.detach(), found.before)
        after, before = (self.distortion_bits(x_hat, images, place.quality) for x_hat in pictures)
        missing = (after - before - (place.slope * step).sum((1, 2, 3))).sum()
        missing, energy = over_processes(torch.stack([missing, step.square().sum()]))
        curvature = 2.0 * missing / energy.clamp(min=1e-6)
        if curvature.isfinite():  # the step is skipped if not
            self.model.curvature.lerp_(curvature.clamp(*CURVATURES), 1.0 - STEADY)


@torch.no_grad()
def init_from_images(model: BaseWithSide, images: Tensor) -> None:
    """Fits new side modules to crops [B, 3, H, W]; those that came with a checkpoint stay as they are."""
    if model.is_new:
        stage = MSCStage(model, LossSettings())
        quality = torch.linspace(1, stage.objective.qualities, len(images), dtype=torch.float64)
        places = [stage.place(image[None], q[None]) for image, q in zip(images, quality, strict=True)]
        model.init_from_steps(torch.cat([stage.newton_step(place) for place in places]))


STAGES = {"ddt": DDTStage, "msc": MSCStage, "codebook-warm-up": WarmUpStage, "codebook": CodebookStage}


def random_mask(saved: Tensor) -> Tensor:
    """A mask [B, 1, h, w] of most positions that save more than a few bits, by chance; and of a few that save most."""
    threshold = MASK_BITS * torch.rand(len(saved), 1, 1, device=saved.device)
    few = int(ALWAYS * saved[0].numel())
    best = saved.flatten(1).topk(few + 1).values[:, -1, None, None]  # quantile() computes in float64
    kept = torch.rand_like(saved) < KEPT
    return ((saved > torch.minimum(threshold, best)) & kept)[:, None].to(saved.dtype)


def squared_error(x_hat: Tensor, images: Tensor) -> Tensor:
    """Mean squared error of each picture as it is shown, [B]."""
    return (x_hat.float().clamp(0, 1) - images).square().mean((1, 2, 3))
