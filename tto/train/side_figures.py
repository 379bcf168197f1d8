"""What a side stage is judged by, on whole images at every integer quality, 32-bit floats; latents as refined as in
the stage's training.

Gains in PSNR leave out the bits of the side information, so they are upper bounds; for the codebook there is also J
with the mask chosen in one go, its bits estimated.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tto.side.transform import apply_transform, best_matrix
from tto.train.side_stages import MASK_BITS, CodebookStage, DDTStage, SideStage, WarmUpStage, squared_error
from tto.train.validation import at_qualities


def side_figures(stage: SideStage, images: list[Tensor]) -> dict[str, float | list[float]]:
    """Figures by name, means over images [1, 3, H, W]; lists have one value per quality."""
    was_training = stage.training
    stage.eval()
    quality = torch.arange(1, stage.objective.qualities + 1, dtype=torch.float64)
    gained, bound, codes, masked = [], [], [], []
    with torch.no_grad():
        for batch, part in (pair for image in images for pair in at_qualities(image, quality)):
            found = stage.reconstruct(batch, part)
            before, after = (squared_error(x_hat, batch) for x_hat in (found.before, found.after))
            gained.append(10.0 * (before / after).log10())
            if isinstance(stage, DDTStage):
                best = apply_transform(found.before, best_matrix(found.before, batch))
                bound.append(10.0 * (before / squared_error(best, batch)).log10())
            if found.codes is not None:
                codes.append(found.codes.flatten())
            if isinstance(stage, WarmUpStage | CodebookStage):
                masked.append(masked_gain(stage, batch, part))
    stage.train(was_training)
    per_quality = torch.cat(gained).view(len(images), -1).mean(0)
    figures = {"psnr_gained_db": per_quality.mean().item(), "psnr_gained_db_per_quality": per_quality.tolist()}
    if bound:
        figures["psnr_gained_by_best_matrix_db"] = torch.cat(bound).mean().item()
    if codes:
        shares = torch.bincount(torch.cat(codes), minlength=len(stage.model.usage)).cpu().double()
        shares /= shares.sum()
        figures["perplexity"] = torch.special.entr(shares).sum().exp().item()
        figures["live_codes"] = (shares > 0).double().mean().item()
    if masked:
        per_quality = torch.cat(masked, 1).view(2, len(images), -1).mean(1)
        figures["J_gained_percent"], figures["positions_on"] = per_quality.mean(1).tolist()
        figures["J_gained_percent_per_quality"] = per_quality[0].tolist()
    return figures


def masked_gain(stage: WarmUpStage | CodebookStage, images: Tensor, quality: Tensor) -> Tensor:
    """J gained in percent (the rate of z left out), and share of positions that are on, [2, B]."""
    place = stage.place(images, quality)
    choice = stage.choose(place)
    mask = (choice.saved > MASK_BITS).float()
    found = stage.compensated(place, stage.look_up(choice.codes) * mask[:, None])
    share = mask.mean((1, 2))
    mask_bits = (torch.special.entr(share) + torch.special.entr(1 - share)) / math.log(2.0)
    code_bits = (stage.model.code_bits()[choice.codes] * mask).sum((1, 2))
    old, new = (stage.distortion_bits(x_hat, images, quality) for x_hat in (found.before, found.after))
    saved = old - new - code_bits - mask_bits * mask[0].numel()
    return torch.stack([100.0 * saved / (place.latents.bits + old), share])
