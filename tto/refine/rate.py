"""Bits of latents as the coder will spend them, differentiable.

Both estimates are of the integer tables' costs: a frequency is never below 2⁻¹⁶, so no symbol costs more than 16 bits
(an escape beyond the table's end costs a few more, which is neglected).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from base_models.entropy_models import SMALLEST_SCALE
from base_models.tables import TOTAL, IntegerTables

Rate = Callable[..., Tensor]
"""Bits of rounded values v in steps, given σ/Δ and the mean in steps: 0 where v is centred on it, else (on the integer
grid) μ/Δ; and, as `smallest`, the σ/Δ that smaller ones count as."""
LOWEST_PROBABILITY = 1 / TOTAL


def gaussian_bits(v: Tensor, sigma: Tensor, mean: Tensor | float = 0.0, smallest: float = SMALLEST_SCALE) -> Tensor:
    """Bits of each v under a Gaussian of deviation σ/Δ around `mean`, integrated over the unit cell around v.

    `v` and `sigma` [...] → [...]. At integers this is what a symbol costs.
    """
    scale = math.sqrt(0.5) / sigma.clamp(min=smallest)
    distance = (v - mean).abs()
    mass = 0.5 * (torch.erfc((distance - 0.5) * scale) - torch.erfc((distance + 0.5) * scale))
    return -torch.log2(mass + LOWEST_PROBABILITY)


def expected_bits(v: Tensor, sigma: Tensor, mean: Tensor | float = 0.0, smallest: float = SMALLEST_SCALE) -> Tensor:
    """`gaussian_bits` at the integers around v, interpolated linearly: the mean cost of rounding down or up **[ours]**.

    The Gaussian's own bits between integers are below that line, so with them a relaxed latent saves bits that
    rounding then gives back; descent goes for those. At low rates this mends half of what rounding used to cost.
    """
    low = v.detach().floor()
    part = v - low
    below, above = (gaussian_bits(value, sigma, mean, smallest) for value in (low, low + 1))
    return below * (1 - part) + above * part


def mixed_bits(v: Tensor, sigma: Tensor, mean: Tensor | float = 0.0, smallest: float = SMALLEST_SCALE) -> Tensor:
    """Half `gaussian_bits`, half `expected_bits` **[ours]**.

    The latter has a kink at every integer, around which large steps swing to and fro; this one's is half as sharp.
    """
    return 0.5 * (gaussian_bits(v, sigma, mean, smallest) + expected_bits(v, sigma, mean, smallest))


def total_bits(rate: Rate, v: Tensor, sigma: Tensor, mean: Tensor | float) -> Tensor:
    return rate(v, sigma, mean).sum()


class TotalBits(torch.autograd.Function):
    """`total_bits` that remembers what it is given alone; the steps to its gradient are computed anew for that."""

    @staticmethod
    def forward(ctx, rate: Rate, v: Tensor, sigma: Tensor, mean: Tensor | float) -> Tensor:
        ctx.rate = rate
        ctx.save_for_backward(v, sigma, torch.as_tensor(mean))
        return total_bits(rate, v, sigma, mean)

    @staticmethod
    def backward(ctx, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        given = [x.detach().requires_grad_(is_wanted) for x, is_wanted in pairs]
        with torch.enable_grad():
            bits = total_bits(ctx.rate, *given)
        found = iter(torch.autograd.grad(bits, [x for x in given if x.requires_grad], upstream))
        return None, *(next(found) if x.requires_grad else None for x in given)


class FactorizedBits:
    """Cost of a latent with a factorized prior by its integer tables, one per channel: of z, or of y without σ.

    Between integers the costs are interpolated linearly as by `expected_bits` (training uses a smooth density).
    """

    def __init__(self, tables: IntegerTables, device: torch.device):
        self._costs = torch.from_numpy(tables.costs).float().to(device)  # [N, longest]
        self._offsets = torch.from_numpy(tables.offsets).float().view(1, -1, 1, 1).to(device)

    def __call__(self, u: Tensor) -> Tensor:
        """u [1, N, h, w], the latent less its median, in steps → bits [1, N, h, w]."""
        if not u.numel():
            return u
        last = self._costs.shape[1] - 1
        position = (u - self._offsets).clamp(0, last)
        low = position.detach().floor().clamp(max=last - 1)
        part = position - low
        index = low.long()[0].flatten(1)  # [N, h·w]
        below = self._costs.gather(1, index).view_as(u)
        above = self._costs.gather(1, index + 1).view_as(u)
        return below * (1 - part) + above * part
