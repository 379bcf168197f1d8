"""The validation loss: whole images at every integer quality, hard rounding, 32-bit floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from base_models import BaseModel
from tto.train.errors import DataError
from tto.train.images import decode, find_images
from tto.train.objective import RateDistortion
from tto.train.recipe import LossSettings

BATCH_PIXELS = 2**22


@dataclass(frozen=True)
class ValidationResult:
    """`loss` is the mean over images and qualities; the tuples have one mean per quality (bits per pixel, dB).

    `samples` are the first images beside their reconstructions at the lowest, middle and highest quality, each
    uint8 [H, (1 + qualities)·W, 3].
    """

    loss: float
    bpp: tuple[float, ...]
    bpp_z: tuple[float, ...]
    psnr: tuple[float, ...]
    samples: tuple[np.ndarray, ...] = ()


def validation_images(
    entries: tuple[str, ...], count: int, multiple: int, device: torch.device, smallest: int = 1
) -> list[Tensor]:
    """Up to `count` images spread over the set, the middle of each cut to multiples; each [1, 3, H, W].

    Raises `DataError` where a side of one is below `smallest`.
    """
    sources = find_images(entries)
    chosen = [sources[i] for i in np.linspace(0, len(sources) - 1, min(count, len(sources))).round().astype(int)]
    images = [_crop(decode(source), multiple).to(device) for source in chosen]
    for source, image in zip(chosen, images, strict=True):
        if min(image.shape[2:]) < smallest:
            raise DataError(
                f"data.val: {source} has {image.shape[3]}x{image.shape[2]} pixels; expected {smallest} a side"
            )
    return images


@torch.no_grad()
def validate(model: BaseModel, images: list[Tensor], objective: RateDistortion, samples: int = 0) -> ValidationResult:
    """Measures a model in eval mode.

    They are weighted as by default, so that the losses of stages that weigh them otherwise compare.
    """
    settings = replace(objective.settings, quality_power=LossSettings.quality_power)
    objective = RateDistortion(settings, objective)
    was_training = model.training
    model.eval()
    quality = torch.arange(1, objective.qualities + 1, dtype=torch.float64)
    shown = {1, (len(quality) + 1) // 2, len(quality)}
    rows, pictures = [], []  # rows: per image [4, Q]
    for image in images:
        columns, views = [], [image[0]]
        for batch, part in at_qualities(image, quality):
            output = model(batch, part)
            output["x_hat"] = output["x_hat"].clamp(0, 1)
            terms = objective(output, batch, part)
            psnr = -10.0 * terms.mse.clamp(min=1e-10).log10()
            columns.append(torch.stack([terms.loss, terms.bpp_y + terms.bpp_z, terms.bpp_z, psnr]).cpu())
            if len(pictures) < samples:
                views += [x_hat for x_hat, q in zip(output["x_hat"], part.tolist(), strict=True) if q in shown]
        rows.append(torch.cat(columns, 1))
        if len(pictures) < samples:
            pictures.append(_side_by_side(views))
    model.train(was_training)
    loss, bpp, bpp_z, psnr = torch.stack(rows).mean(0)
    means = (tuple(row.tolist()) for row in (bpp, bpp_z, psnr))
    return ValidationResult(loss.mean().item(), *means, samples=tuple(pictures))


def at_qualities(image: Tensor, quality: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """An image [1, 3, H, W] and some of the qualities [Q], as a batch [B, 3, H, W] and [B], until all had their turn:
    as many at once as have `BATCH_PIXELS`.
    """
    for part in quality.split(max(1, BATCH_PIXELS // image[0, 0].numel())):
        yield image.expand(len(part), -1, -1, -1), part


def _side_by_side(images: list[Tensor]) -> np.ndarray:
    return torch.cat(images, dim=2).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()


def _crop(pixels: np.ndarray, multiple: int) -> Tensor:
    height, width = (max(multiple, side // multiple * multiple) for side in pixels.shape[:2])
    pad = [(0, max(0, height - pixels.shape[0])), (0, max(0, width - pixels.shape[1])), (0, 0)]
    pixels = np.pad(pixels, pad, mode="edge")
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels = pixels[top : top + height, left : left + width]
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() / 255.0
