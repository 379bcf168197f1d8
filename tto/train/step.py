"""One training step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

from tto.train.crops import Batch
from tto.train.objective import RateDistortion


@dataclass(frozen=True)
class StepContext:
    """What stays the same from step to step of a stage."""

    accelerator: Accelerator
    network: nn.Module  # as called: possibly compiled and distributed
    parameters: list[nn.Parameter]
    optimizer: AcceleratedOptimizer
    objective: RateDistortion
    clip_norm: float
    micro_batch: int
    seed: tuple[int, int]  # of the run, and number of the stage


def accumulate_gradients(context: StepContext, batch: Batch, step: int) -> dict[str, float]:
    """Forward and backward of one batch; returns means over the batch of all processes, and the gradient norm.

    Each part of the batch has its own noise, seeded by its place in the global batch, so the result does not depend
    on how the batch is divided among processes. Gradients are clipped.
    """
    accelerator = context.accelerator
    count = len(batch.images)
    parts = range(0, count, context.micro_batch)
    first_part = accelerator.process_index * len(parts)
    sums = torch.zeros(4, device=batch.images.device)
    for number, start in enumerate(parts):
        part = batch.part(start, context.micro_batch)
        quality = context.objective.quality(part.position)
        torch.manual_seed(noise_seed(*context.seed, step, first_part + number))
        last = number == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(context.network):
            with accelerator.autocast():
                output = context.network(part.images, quality)
            terms = context.objective(output, part.images, quality)
            accelerator.backward(terms.loss.sum() / count)
        sums += torch.stack([t.detach().float().sum() for t in (terms.loss, terms.bpp_y, terms.bpp_z, terms.mse)])
    norm = accelerator.clip_grad_norm_(context.parameters, context.clip_norm)
    means = accelerator.reduce(sums / count, reduction="mean")
    values = torch.cat([means, norm.reshape(1).to(means)]).tolist()
    return dict(zip(("loss", "bpp_y", "bpp_z", "mse", "gradient_norm"), values, strict=True))


def noise_seed(seed: int, stage: int, step: int, part: int) -> int:
    """A 63-bit seed that differs for every part of every step."""
    mixed = 0
    for value in (seed, stage, step, part):
        mixed = (mixed * 0x9E3779B97F4A7C15 + value + 1) & 0x7FFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed
