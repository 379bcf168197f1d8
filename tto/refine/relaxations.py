"""Differentiable stand-ins for rounding, each one small class.

All act on a latent in units of its quantization step, centred on what rounding is centred on (μ for y, the median
for z), elementwise, [...] → [...] of the same shape. `temperature` goes to zero as a run ends. `hard` says that
values are already integers, so a training step is at the same time an exact look at a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

EDGE = 1e-5
"""Distance from 0 and 1 kept by arguments of atanh and of the logit, as in the published code of SGA."""


class Relaxation(Protocol):
    @property
    def hard(self) -> bool: ...

    def __call__(self, u: Tensor, temperature: float, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class StraightThrough:
    """Rounds; the gradient is that of the identity (Bengio 2013). No temperature."""

    hard: bool = True

    def __call__(self, u: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        return u + (u.round() - u).detach()


@dataclass(frozen=True)
class UniformNoise:
    """Adds noise from [−½, ½) (Ballé 2017). No temperature."""

    hard: bool = False

    def __call__(self, u: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        return u + _uniform(u, generator) - 0.5


@dataclass(frozen=True)
class SoftRounding:
    """⌊u⌋ + ½ + tanh(α(u − ⌊u⌋ − ½)) / (2·tanh(α/2)) with α = 1/temperature (Agustsson & Theis 2020, Eq. 11).

    Ours: the temperature instead of α, and no noise added.
    """

    hard: bool = False

    def __call__(self, u: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        alpha = 1 / temperature
        middle = u.floor() + 0.5
        scale = 2 * torch.tanh(torch.tensor(alpha / 2, device=u.device))
        return middle + torch.tanh(alpha * (u - middle)) / scale


@dataclass(frozen=True)
class DeterministicAnnealing:
    """The mean of SGA's rounding distribution: p(up) from atanh of the distances over the temperature.

    Compared with in Yang 2020 (§3.2, appendix A.3) after Agustsson 2017.
    """

    hard: bool = False

    def __call__(self, u: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        low = u.floor()
        return low + torch.sigmoid(_atanh_logit(u - low) / temperature)


@dataclass(frozen=True)
class SGA:
    """Stochastic Gumbel annealing (Yang 2020, §3.2): a Gumbel-softmax sample of rounding down or up.

    With two classes a Gumbel-softmax sample is the sigmoid of the logit's difference plus logistic noise; as in the
    published code, one temperature scales both the logits and the sample.
    """

    hard: bool = False

    def __call__(self, u: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        low = u.floor()
        noise = torch.logit(_uniform(u, generator), eps=EDGE)
        return low + torch.sigmoid((_atanh_logit(u - low) / temperature + noise) / temperature)


@dataclass(frozen=True)
class SGAPlusSSL:
    """SGA+ with the sigmoid scaled logit and three classes (Perugachi-Diaz 2024, §3.2, §3.3 and published code).

    The probability of each of ⌊u⌉ − 1, ⌊u⌉, ⌊u⌉ + 1 at distance d is σ(−a·logit(r·d / 1.5))ⁿ, normalized.
    """

    a: float = 1.4
    n: float = 1.4
    r: float = 0.98
    hard: bool = False

    def __call__(self, u: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        nearest = u.round().detach()
        offsets = torch.tensor([-1.0, 0.0, 1.0], device=u.device, dtype=u.dtype)
        distance = ((u - nearest)[..., None] - offsets).abs()  # [..., 3]
        logits = self.n * torch.nn.functional.logsigmoid(-self.a * torch.logit(self.r / 1.5 * distance, eps=EDGE))
        gumbel = -torch.log(-torch.log(_uniform(distance, generator).clamp(EDGE, 1 - EDGE)))
        weights = ((logits / temperature + gumbel) / temperature).softmax(-1)
        return nearest + (weights * offsets).sum(-1)


def _atanh_logit(v: Tensor) -> Tensor:
    """log p(up) − log p(down) for the fractional part v in [0, 1), times the temperature."""
    return torch.atanh(v.clamp(max=1 - EDGE)) - torch.atanh((1 - v).clamp(max=1 - EDGE))


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
