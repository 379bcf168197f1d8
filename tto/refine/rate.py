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

Rate = Callable[[Tensor, Tensor], Tensor]
"""Bits of u = (ŷ − μ)/Δ, given u and σ/Δ."""
LOWEST_PROBABILITY = 1 / TOTAL


def gaussian_bits(u: Tensor, sigma: Tensor) -> Tensor:
    """Bits of each u = (ŷ − μ)/Δ under a Gaussian of deviation σ/Δ, integrated over the unit cell around u.

    `u` and `sigma` [...] → [...]. At integers this is what a symbol costs.
    """
    scale = math.sqrt(0.5) / sigma.clamp(min=SMALLEST_SCALE)
    distance = u.abs()
    mass = 0.5 * (torch.erfc((distance - 0.5) * scale) - torch.erfc((distance + 0.5) * scale))
    return -torch.log2(mass + LOWEST_PROBABILITY)


def expected_bits(u: Tensor, sigma: Tensor) -> Tensor:
    """`gaussian_bits` at the integers around u, interpolated linearly: the mean cost of rounding down or up **[ours]**.

    The Gaussian's own bits between integers are below that line, so with them a relaxed latent saves bits that
    rounding then gives back; descent goes for those. At low rates this mends half of what rounding used to cost.
    """
    low = u.detach().floor()
    part = u - low
    return gaussian_bits(low, sigma) * (1 - part) + gaussian_bits(low + 1, sigma) * part


def mixed_bits(u: Tensor, sigma: Tensor) -> Tensor:
    """Half `gaussian_bits`, half `expected_bits` **[ours]**.

    The latter has a kink at every integer, around which large steps swing to and fro; this one's is half as sharp.
    """
    return 0.5 * (gaussian_bits(u, sigma) + expected_bits(u, sigma))


class FactorizedBits:
    """Cost of z by its integer tables, one per channel.

    Between integers the costs are interpolated linearly as by `expected_bits` (training uses a smooth density).
    """

    def __init__(self, tables: IntegerTables, device: torch.device):
        self._costs = torch.from_numpy(tables.costs).float().to(device)  # [N, longest]
        self._offsets = torch.from_numpy(tables.offsets).float().view(1, -1, 1, 1).to(device)

    def __call__(self, u: Tensor) -> Tensor:
        """u [1, N, h, w], z less its median → bits [1, N, h, w]."""
        last = self._costs.shape[1] - 1
        position = (u - self._offsets).clamp(0, last)
        low = position.detach().floor().clamp(max=last - 1)
        part = position - low
        index = low.long()[0].flatten(1)  # [N, h·w]
        below = self._costs.gather(1, index).view_as(u)
        above = self._costs.gather(1, index + 1).view_as(u)
        return below * (1 - part) + above * part
