"""Entropy models of latents: parameters, likelihoods for training, and the integer tables that a coder uses.

Names in the state dict and arithmetic are those of CompressAI's `EntropyBottleneck` and `GaussianConditional`, so
that its checkpoints load; decoding needs nothing but the tables. Shapes: `B` batch, `N` channels, `P` positions.

Sources: factorized density of Ballé 2018 ("Variational image compression with a scale hyperprior", appendix 6.1);
conditional Gaussians of Minnen 2018.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import zip_longest
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tables import TOTAL, IntegerTables
from .third_party import compressai

TAIL_MASS = 1e-9
"""Probability of what lies outside a table's range."""
LEAST_LIKELIHOOD = 1e-9
MOST_SYMBOLS = TOTAL // 4
"""In a table of a factorized prior; it takes time that grows with the square."""
SMALLEST_SCALE, LARGEST_SCALE, SCALES = 0.11, 256.0, 64
"""First and last of the usual levels of σ, and how many there are, equally spaced in their logarithm."""


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, bound: Tensor) -> Tensor:
        ctx.save_for_backward(x, bound)
        return torch.maximum(x, bound)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (x, bound) = gradients, ctx.saved_tensors
        return gradient * ((x >= bound) | (gradient < 0)), None


class LowerBound(nn.Module):
    """max(x, bound), whose gradient lets x come back from below the bound."""

    bound: Tensor

    def __init__(self, bound: float):
        super().__init__()
        self.register_buffer("bound", torch.tensor([bound]))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _LowerBound.apply(x, self.bound))


def upper_bounded(x: Tensor, bound: float) -> Tensor:
    """min(x, bound), whose gradient lets x come back from above the bound."""
    return -cast(Tensor, _LowerBound.apply(-x, x.new_tensor(-bound)))


class EntropyModel(nn.Module, ABC):
    """Integer tables in buffers that are empty until `update_tables` has built them or a state dict brings them."""

    TABLES = ("_offset", "_quantized_cdf", "_cdf_length")
    _offset: Tensor
    _quantized_cdf: Tensor
    _cdf_length: Tensor

    def __init__(self):
        super().__init__()
        for name in self.TABLES:
            self.register_buffer(name, torch.empty(0, dtype=torch.int32))
        self.likelihood_lower_bound = LowerBound(LEAST_LIKELIHOOD)

    @property
    def has_tables(self) -> bool:
        return self._quantized_cdf.numel() > 0

    @property
    @abstractmethod
    def table_count(self) -> int:
        """How many tables there must be."""

    def tables(self) -> IntegerTables:
        """The tables as arrays. Raises `ValueError` where there are none."""
        if not self.has_tables:
            raise ValueError("the model has no coding tables: call update_tables() first")
        cdfs, lengths, offsets = (
            getattr(self, name).cpu().numpy() for name in ("_quantized_cdf", "_cdf_length", "_offset")
        )
        return IntegerTables(cdfs, lengths.reshape(-1), offsets)

    def _set_tables(self, masses: Tensor, tails: Tensor, lengths: Tensor, offsets: Tensor) -> None:
        self._quantized_cdf, self._cdf_length = tables_of_masses(masses, tails, lengths)
        self._offset = offsets.int()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *arguments) -> None:  # pyright: ignore
        """Tables have the size that the checkpoint gives them."""
        for name in (*self.TABLES, "scale_table"):
            own, found = self._buffers.get(name), state_dict.get(prefix + name)
            if own is not None and found is not None:
                self._buffers[name] = own.new_empty(found.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class FactorizedPrior(EntropyModel):
    """A learned density for each channel, whose cumulative distribution is a small monotonic network.

    `quantiles` [N, 1, 3] are where it is `TAIL_MASS` / 2, one half, and 1 − `TAIL_MASS` / 2.
    """

    target: Tensor

    not_matrices = ("*",)
    WIDTHS = (1, 3, 3, 3, 3, 1)
    FIRST_SCALE = 10.0

    def __init__(self, channels: int):
        super().__init__()
        scale = self.FIRST_SCALE ** (1 / (len(self.WIDTHS) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for width, following in zip(self.WIDTHS, self.WIDTHS[1:], strict=False):
            start = math.log(math.expm1(1 / scale / following))
            self.matrices.append(nn.Parameter(torch.full((channels, following, width), start)))
            self.biases.append(nn.Parameter(torch.empty(channels, following, 1).uniform_(-0.5, 0.5)))
        for width in self.WIDTHS[1:-1]:
            self.factors.append(nn.Parameter(torch.zeros(channels, width, 1)))
        quantiles = torch.tensor([-self.FIRST_SCALE, 0.0, self.FIRST_SCALE])
        self.quantiles = nn.Parameter(quantiles.repeat(channels, 1, 1))
        logit = math.log(2 / TAIL_MASS - 1)
        self.register_buffer("target", torch.tensor([-logit, 0.0, logit]))

    @property
    def table_count(self) -> int:
        return len(self.quantiles)

    def medians(self) -> Tensor:
        """What values are centred on before rounding, [1, N, 1, 1]."""
        return self.quantiles[None, :, 0, 1:2, None].detach()

    def likelihood(self, z: Tensor, step: Tensor | None = None) -> Tensor:
        """Probability of the unit cell around each value of z [B, N, H, W]; in training mode around noisy ones.

        With `step` [B, 1, 1, 1] values are in steps from the medians, and cells are as wide as these.
        """
        values = _by_channel(z)
        medians = self.quantiles[:, :, 1:2]
        if self.training:
            values = values + torch.empty_like(values).uniform_(-0.5, 0.5)
        else:
            values = (values - medians).round() + medians
        width = None if step is None else _by_channel(step.expand_as(z))
        if width is not None:
            values = (values - medians) * width + medians
        return self._likelihood(values, 1.0 if width is None else width, z.shape)

    def likelihood_at(self, values: Tensor) -> Tensor:
        """Probability of the unit cell around each value [B, N, H, W] as it is."""
        return self._likelihood(_by_channel(values), 1.0, values.shape)

    def _likelihood(self, values: Tensor, width: Tensor | float, shape: torch.Size) -> Tensor:
        likelihood = self.likelihood_lower_bound(self._mass(values, width)[0])
        return likelihood.view(shape[1], shape[0], *shape[2:]).transpose(0, 1)

    def quantile_loss(self) -> Tensor:
        """How far the quantiles are from where they should be; gradients reach nothing else."""
        return (self._logits(self.quantiles, frozen=True) - self.target).abs().sum()

    @torch.no_grad()
    def update_tables(self, fit_quantiles: bool = False) -> None:
        """Builds integer tables; with `fit_quantiles` the quantiles first go where they belong.

        Raises `ValueError` where they lie absurdly far apart.
        """
        if fit_quantiles:
            self._fit_quantiles()
        low, median, high = self.quantiles[:, 0].T
        below = (median - low).ceil().int().clamp(min=0)
        lengths = (high - median).ceil().int().clamp(min=0) + below + 1
        if not (self.quantiles.abs() < MOST_SYMBOLS).all() or int(lengths.max()) > MOST_SYMBOLS:
            raise ValueError(f"quantiles are as far as {float(self.quantiles.abs().max()):g} from zero")
        samples = torch.arange(int(lengths.max()), device=low.device) + (median - below)[:, None, None]
        masses, lower, upper = self._mass(samples)
        tails = lower[:, 0, :1].sigmoid() + (-upper[:, 0, -1:]).sigmoid()
        self._set_tables(masses[:, 0], tails, lengths, -below)

    def _mass(self, values: Tensor, width: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Probability of cells, and the logits of their two ends, each [N, 1, P]."""
        lower, upper = self._logits(values - 0.5 * width), self._logits(values + 0.5 * width)
        return upper.sigmoid() - lower.sigmoid(), lower, upper

    def _logits(self, values: Tensor, frozen: bool = False) -> Tensor:
        """Logits of the cumulative distribution at values [N, 1, P]."""
        for matrix, bias, factor in zip_longest(self.matrices, self.biases, self.factors):
            if frozen:
                matrix, bias, factor = matrix.detach(), bias.detach(), None if factor is None else factor.detach()
            values = F.softplus(matrix) @ values + bias
            if factor is not None:
                values = values + factor.tanh() * values.tanh()
        return values

    def _fit_quantiles(self) -> None:
        """By bisection."""
        low = torch.full_like(self.quantiles, -1e5)
        high = -low
        while not torch.isclose(low, high, rtol=1e-4, atol=1e-3).all():
            middle = (low + high) / 2
            logits = self._logits(middle)
            low, high = (
                torch.where(logits <= self.target, middle, low),
                torch.where(logits >= self.target, middle, high),
            )
        self.quantiles.copy_((low + high) / 2)


def _by_channel(z: Tensor) -> Tensor:
    """[B, N, H, W] → [N, 1, P]."""
    return z.transpose(0, 1).flatten(1)[:, None]


class GaussianConditional(EntropyModel):
    """Gaussians of given mean and deviation; the deviation is coded as the next of the levels of `scale_table`.

    Likelihoods are of σ of at least `bound`; levels begin at `first_level`, or else at that.
    """

    scale_table: Tensor
    scale_bound: Tensor

    def __init__(self, bound: float = SMALLEST_SCALE, first_level: float | None = None):
        super().__init__()
        self.first_level = bound if first_level is None else first_level
        self.lower_bound_scale = LowerBound(bound)
        self.register_buffer("scale_table", torch.empty(0))
        self.register_buffer("scale_bound", torch.tensor([bound]))

    @property
    def table_count(self) -> int:
        return len(self.scale_table)

    @property
    def smallest_scale(self) -> float:
        """What smaller σ cost as: of the tables, or before there are any of likelihoods."""
        return float(self.scale_table[0] if len(self.scale_table) else self.lower_bound_scale.bound)

    def likelihood(self, y: Tensor, sigma: Tensor, mu: Tensor) -> Tensor:
        """Probability of the unit cell around y rounded at its mean; in training mode around noisy y."""
        values = y + torch.empty_like(y).uniform_(-0.5, 0.5) - mu if self.training else (y - mu).round()
        return self.likelihood_at(values, sigma)

    def likelihood_at(self, values: Tensor, sigma: Tensor) -> Tensor:
        """Probability of the unit cell around values that are centred already."""
        return self.likelihood_lower_bound(cell_mass(values, self.lower_bound_scale(sigma)))

    @torch.no_grad()
    def update_tables(self) -> None:
        """Builds integer tables for levels as far from each other as the usual ones."""
        first, last = math.log(self.first_level), math.log(LARGEST_SCALE)
        gaps = round((SCALES - 1) * (last - first) / (last - math.log(SMALLEST_SCALE)))
        levels = torch.linspace(first, last, gaps + 1).exp()
        self.scale_table = levels.to(self.scale_bound.device)
        reach = -torch.special.ndtri(torch.tensor(TAIL_MASS / 2, dtype=torch.float64))
        centers = (self.scale_table * float(reach)).ceil().int()
        lengths = 2 * centers + 1
        distances = (torch.arange(int(lengths.max()), device=centers.device) - centers[:, None]).abs().float()
        scales = self.scale_table[:, None]
        tails = torch.erfc((distances[:, :1] + 0.5) / scales * 0.5**0.5)
        self._set_tables(cell_mass(distances, scales), tails, lengths, -centers)


class IntegerGaussian(GaussianConditional):
    """The same for y that is rounded where it is, whatever its mean."""

    def likelihood(self, y: Tensor, sigma: Tensor, mu: Tensor) -> Tensor:
        """Probability of the unit cell around rounded y; in training mode around noisy y."""
        values = y + torch.empty_like(y).uniform_(-0.5, 0.5) if self.training else y.round()
        return self.likelihood_lower_bound(cell_mass(values - mu, self.lower_bound_scale(sigma)))


def cell_mass(distance: Tensor, sigma: Tensor) -> Tensor:
    """Mass of a centred Gaussian on the unit cell around `distance`; the complementary error function is precise far
    from the center.
    """
    distance = distance.abs()
    upper, lower = (0.5 * torch.erfc((distance + end) / sigma * 0.5**0.5) for end in (-0.5, 0.5))
    return upper - lower


def tables_of_masses(masses: Tensor, tails: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [T, longest] of symbols, of which row t has `lengths[t]`, and of what is outside, `tails` [T, 1] →
    cumulative frequencies int32 [T, longest + 2], and their number in each row, int32 [T].
    """
    pmf_to_quantized_cdf = compressai("_CXX").pmf_to_quantized_cdf
    cdfs = torch.zeros(len(lengths), int(lengths.max()) + 2, dtype=torch.int32)
    for row, mass, tail, length in zip(cdfs, masses, tails, lengths.tolist(), strict=True):
        frequencies = pmf_to_quantized_cdf(torch.cat([mass[:length], tail]).tolist(), TOTAL.bit_length() - 1)
        row[: len(frequencies)] = torch.tensor(frequencies, dtype=torch.int32)
    return cdfs.to(masses.device), (lengths + 2).int()
