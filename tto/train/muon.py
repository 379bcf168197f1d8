"""Muon (K. Jordan, 2024): a matrix moves by its momentum, made orthogonal. A kernel is the matrix [out, in·h·w]."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import timm.optim.muon as timm_muon
import torch
from torch import Tensor

from tto.device import descends_in_bfloat16

ITERATIONS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
"""Coefficients of each step of Newton and Schulz' iteration, as timm has them by default (F. L. Cesista)."""


class Muon(timm_muon.Muon):
    """timm's, with matrices of one shape taken through the iteration together, in bfloat16 only where the device
    multiplies it itself: elsewhere it took longer than all the rest of a training step.

    `step` takes the gradients of matrices with it.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            if group.get("use_muon"):
                alike = defaultdict(list)
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        alike[parameter.flatten(1).shape].append(parameter)
                for parameters in alike.values():
                    self._move(parameters, group)
        super().step()

    def _move(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        momenta = []
        for parameter in parameters:
            momentum = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
            momenta.append(momentum.lerp_(parameter.grad, 1 - group["momentum"]).flatten(1))
            parameter.grad = None
        dtype = torch.bfloat16 if descends_in_bfloat16(parameters[0].device) else torch.float32
        moves = timm_muon.zeropower_via_newtonschulz(torch.stack(momenta), len(ITERATIONS), ITERATIONS, dtype=dtype)
        rate = group["lr"] * timm_muon.get_lr_scale(moves.shape)
        for parameter, move in zip(parameters, moves, strict=True):
            parameter.add_(move.view(parameter.shape), alpha=-rate)
