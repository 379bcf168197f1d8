"""Gradients of rate and distortion in such proportion that both fall at the same relative speed.

Paper: Y. Zhang, Z. Duan, Y. Huang, F. Zhu, "Balanced Rate-Distortion Optimization in Learned Image Compression",
CVPR 2025 (arXiv 2502.20161), the second of its two ways, for networks that are trained already. Ours: the weights in
closed form, never below 0, and with the sum that they have without it.

    one forward pass ─┬─ rate ─────── gradient ─┬─ mean over parts of the batch and processes ─ weights ─ their sum
                      └─ distortion ─ gradient ─┘

Shapes: `P` numbers in all parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

PARTS = ("rate", "distortion")


class ApartGradients:
    """Gradients of the two parts of the loss, accumulated over a batch; the parameters have none meanwhile."""

    def __init__(self, accelerator: Accelerator, parameters: Sequence[nn.Parameter]):
        self.accelerator, self.parameters = accelerator, parameters
        self._found = {name: [torch.zeros_like(parameter) for parameter in parameters] for name in PARTS}

    def backward(self, values: dict[str, Tensor], count: int) -> None:
        """Adds what crops with these `values` [B], of `count` in the batch, contribute; their graph is used up."""
        for name in PARTS:
            self._give(self._found[name])
            self.accelerator.backward(values[name].sum() / count, retain_graph=name != PARTS[-1])
        self._give([None] * len(self.parameters))

    def combine(self, losses: Tensor) -> None:
        """Gives the parameters the balanced gradient, the same in all processes; `losses` [2] are the batch's own."""
        flat = torch.stack([torch.cat([gradient.flatten() for gradient in self._found[name]]) for name in PARTS])
        gradients = cast(Tensor, self.accelerator.reduce(flat, reduction="mean"))  # [2, P]
        losses = cast(Tensor, self.accelerator.reduce(losses, reduction="mean"))
        balanced = balanced_weights(gradients, losses) @ gradients
        sizes = [parameter.numel() for parameter in self.parameters]
        self._give([g.view(p.shape) for g, p in zip(balanced.split(sizes), self.parameters, strict=True)])

    def _give(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient


def balanced_weights(gradients: Tensor, losses: Tensor) -> Tensor:
    """Weights [2] of the gradients [2, P] of two losses [2] above 0; they are not negative, and their sum is 2.

    Of all convex combinations of the gradients of the losses' logarithms the shortest is the one along which both
    logarithms fall equally fast, or, where none does, the shorter of the two.
    """
    relative = gradients / losses[:, None]
    (rate, between), (_, distortion) = relative @ relative.T
    share = (distortion - between) / (rate + distortion - 2 * between).clamp(min=torch.finfo(rate.dtype).tiny)
    weights = torch.stack([share, 1 - share]).clamp(0, 1) / losses
    return 2 * weights / weights.sum()
