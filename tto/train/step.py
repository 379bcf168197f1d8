"""One training step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from tto.train.balance import PARTS, ApartGradients
from tto.train.crops import Batch


class Objective(Protocol):
    """What a stage minimizes."""

    def quality(self, position: Tensor) -> Tensor:
        """Positions 0…1 as qualities 1…Q, [B]."""
        ...

    def values(self, output: dict, images: Tensor, quality: Tensor) -> dict[str, Tensor]:
        """Values [B] of a forward pass; `loss` is minimized, the others are told."""
        ...


@dataclass(frozen=True)
class StepContext:
    """What stays the same from step to step of a stage."""

    accelerator: Accelerator
    network: nn.Module  # as called: possibly compiled and distributed
    parameters: list[nn.Parameter]
    optimizer: Optimizer
    objective: Objective
    clip_norm: float
    micro_batch: int
    seed: tuple[int, int]  # of the run, and number of the stage
    balance: bool = False  # of rate and distortion, which the objective then tells apart


def accumulate_gradients(context: StepContext, batch: Batch, step: int) -> dict[str, float]:
    """Forward and backward of one batch; returns means over the batch of all processes, and the gradient norm.

    Each part of the batch has its own noise, seeded by its place in the global batch, so the result does not depend
    on how parts are divided among processes. Gradients are balanced, where the stage wants it, and clipped. A loss
    without gradient is that of a network that learns by itself, such as a codebook of running means.
    """
    accelerator = context.accelerator
    count = len(batch.images)
    parts = range(0, count, context.micro_batch)
    first_part = accelerator.process_index * len(parts)
    sums: dict[str, Tensor] = {}
    apart = ApartGradients(accelerator, context.parameters) if context.balance else None
    for number, start in enumerate(parts):
        part = batch.part(start, context.micro_batch)
        quality = context.objective.quality(part.position)
        torch.manual_seed(noise_seed(*context.seed, step, first_part + number))
        averaged = number == len(parts) - 1 and apart is None  # over processes, on the way back
        with nullcontext() if averaged else accelerator.no_sync(context.network):
            with accelerator.autocast():
                output = context.network(part.images, quality)
            values = context.objective.values(output, part.images, quality)
            if apart is not None:
                apart.backward(values, count)
            elif values["loss"].requires_grad:
                accelerator.backward(values["loss"].sum() / count)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float().sum()
    if apart is not None:
        apart.combine(torch.stack([sums[name] for name in PARTS]) / count)
    has_gradients = any(parameter.grad is not None for parameter in context.parameters)
    norm = accelerator.clip_grad_norm_(context.parameters, context.clip_norm) if has_gradients else None
    means = cast(Tensor, accelerator.reduce(torch.stack(list(sums.values())) / count, reduction="mean"))
    return dict(zip((*sums, "gradient_norm"), [*means.tolist(), 0.0 if norm is None else float(norm)], strict=True))


def noise_seed(seed: int, stage: int, step: int, part: int) -> int:
    """A 63-bit seed that differs for every part of every step."""
    mixed = 0
    for value in (seed, stage, step, part):
        mixed = (mixed * 0x9E3779B97F4A7C15 + value + 1) & 0x7FFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed
