"""Global reference: local context, the most similar place decoded so far, and a hyperprior predict y one after another.

Paper: Y. Qian, Z. Tan, X. Sun, M. Lin, D. Li, Z. Sun, H. Li, R. Jin, "Learning Accurate Entropy Model with Global
Reference for Image Compression", ICLR 2021 (arXiv:2010.08321). Transforms are those of Minnen 2018 with GSDN.

Shapes: `B` batch, `H W` image size (multiples of 64), `M` channels of y, `h w` size of y, `N` = h·w positions in coding
order, `n` of them at once, `K` those that may be referred to, `T` taps of a masked convolution.

    ŷ ─┬─ masked 5×5 ────────── f₁ ─────────────────── network 1 ── μ₁, σ₁
       ├─ search ─ place j, S    │                                    │
       └─ masked 3×3, at j ── f₂ = f₁ + S·U·that ───── network 2 ──── + ── μ₂, σ₂
    ẑ ─── h_s ─ a, b ──────── f₃ = (1 + a)·f₂ + b ──── network 3 ───────── + ── μ₃, σ₃, by which ŷ is coded

S is how similar place j is, U how probable what was decoded there was by μ₁, σ₁, in the mean of its channels.

What the paper's text leaves open its Tables 1 to 3 settle, as multiply–adds × 2 (tests count them again):

- Three networks of widths 1152, 1152 and 768 = 2·M take 24.46 GFLOP at 512×768 only if they are given 3·M = 1152
  channels together; the one network of Minnen 2018 took 8.15, a third, so each is given M = 384. So features are not
  put beside each other but added up, although A.2 has the networks differ in the channels of their first layer, and
  Fig. 3's caption says that they are conditioned on "both the previous features and predictions": networks 2 and 3
  read features only, and what was predicted before enters as a sum. And there is one Gaussian to code by, where the
  authors' code of later has a mixture of three.
- The reference takes 7.70, of which the masked 3×3 convolution takes 4.08. The rest is 1536·N² = 2·(4·M)·N²/2, also
  along Table 3: all pairs of positions are compared once, in the four positions of a 3×3 patch that are decoded.

**[ours]** How M, M and 2·M channels become M each time, as drawn; that updates of μ and ln σ are added, where §3 keeps
σ in range by Log-Sum-Exp; the slope of leaky ReLU, 0.01, where the authors' code has 0.2 and the paper none; that no
gradient goes through S and U. S and U scale features, as in §3.2; the authors' code, of a mixture, adds their
logarithms to the weight of one of its components. And the order: along diagonals (`base_models.raster`), so that what
is decoded so far is on a diagonal before; the paper's decoder goes one position at a time. Which place is the most
similar is a decision that every machine must take alike: similarities are rounded to multiples of 2⁻¹⁶, far coarser
than float64 errs, and the first of equals is taken; `tto/FORMAT.md` says what is left of the risk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import CodePart, Memory, Quality, Walk, full_precision
from .blocks import MaskedConv, bias_of, conv, deconv
from .double import as_matrix_products
from .entropy_models import IntegerGaussian, upper_bounded
from .limits import check_lambdas, check_ranges, check_switches
from .raster import REACH, diagonals, in_coding_order, in_raster_order, join_diagonals, split_diagonals
from .registry import register
from .residual import GDN, GSDN
from .sliced import SlicedModel

LEVELS = 1 << 16
"""Similarities are multiples of its inverse."""
MOST_SIMILARITIES = 1 << 22
"""How many of the N² similarities are in memory at once, unless one position's are more."""
MOST_QUERIES = 256
"""How many positions are compared at once: with all that the last of them may refer to."""
LARGEST_LOG_SIGMA = 10.0
"""Where σ ends: far above the largest coded scale, far below infinity."""


@dataclass(frozen=True)
class GRMConfig:
    """Sizes; the defaults are the paper's. `hidden` is the width of the parameter networks.

    Without `reference` no place is searched, and the hyperprior's prediction follows the local one; without `gsdn`
    transforms normalize by GDN: what each of them brings (Qian 2021, Fig. 7).
    """

    N: int = 192
    M: int = 384
    hidden: int = 1152
    reference: bool = True
    gsdn: bool = True
    lambdas: tuple[float, ...] = (0.013,)

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no network has."""
        check_ranges(self, N=(1, 4096), M=(1, 4096), hidden=(1, 16384))
        check_switches(self, "reference", "gsdn")
        check_lambdas(self.lambdas)


class CausalConv(MaskedConv):
    """Convolution that sees rows above and what is left of the middle, and with `middle` that, too (van den Oord 2016).

    [B, C, h, w] → [B, O, h, w]; or at some positions only, of what `gather` gives for them.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int, middle: bool):
        super().__init__(in_channels, out_channels, side, padding=side // 2)
        self.taps = side * side // 2 + middle
        reach = side // 2
        self.offsets = [(tap // side - reach, tap % side - reach) for tap in range(self.taps)]
        seen = torch.arange(side * side) < self.taps
        self.register_buffer("mask", seen.float().view(side, side), persistent=False)
        self.on_maps: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.on_maps is None else self.on_maps(x)

    def use_matrix_products(self) -> None:
        """On maps, for evaluation without gradients."""
        self.on_maps = as_matrix_products(nn.ModuleList([self.plain()]))[0]

    def gather(self, padded: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What it sees from positions [n] of a map with `REACH` zeros above and on either side, [B, C, T, n]."""
        down, right = torch.tensor(self.offsets).T[..., None] + REACH
        return padded[:, :, rows + down, columns + right]

    def at(self, seen: Tensor) -> Tensor:
        """[B, C, T, n] → [B, O, n]."""
        weight = self.weight.flatten(2)[..., : self.taps].flatten(1)
        return weight @ seen.flatten(1, 2) + bias_of(self)[:, None]


class Gaussian(NamedTuple):
    """Predicted of y, [B, M, n] each."""

    mu: Tensor
    log_sigma: Tensor

    @property
    def sigma(self) -> Tensor:
        return upper_bounded(self.log_sigma, LARGEST_LOG_SIGMA).exp()


class Found(NamedTuple):
    """What the most similar place gives: features [B, M, n]; S and U [B, 1, n]."""

    features: Tensor
    similarity: Tensor
    confidence: Tensor


class Referred:
    """Serially: what was decoded, as it is compared and referred to, diagonal after diagonal."""

    _seen: Tensor

    def __init__(self, reference: CausalConv, hyper: Tensor):
        """For a walk by `hyper` [B, 2·M, N]."""
        self._reference, (batch, channels, count) = reference, hyper.shape
        self._compared = hyper.new_zeros(batch, 2 * channels, count)
        self._features = hyper.new_zeros(batch, channels // 2, count)
        self._probabilities = full_precision(hyper.new_zeros(batch, 1, count))
        self._start = self._end = 0

    def find(self, known: Tensor, rows: Tensor, columns: Tensor) -> Found:
        """For a diagonal's positions [n] of ŷ so far, padded by `REACH`."""
        start, end = self._start, self._start + len(rows)
        self._seen, self._end = self._reference.gather(known, rows, columns), end
        self._compared[..., start:end] = queries = patches(self._seen)
        places, similarity = search(queries, self._compared[..., : max(start, 1)], torch.full((len(rows),), start))
        return Found(take(self._features, places), similarity, take(self._probabilities, places))

    def add(self, y_hat: Tensor, probability: Tensor) -> None:
        """ŷ [B, M, n] of the diagonal that something was found for, and how probable it was."""
        self._seen[:, :, -1] = y_hat.to(self._seen.dtype)
        self._features[..., self._start : self._end] = self._reference.at(self._seen)
        self._probabilities[..., self._start : self._end] = probability
        self._start = self._end


class Predictions(NamedTuple):
    """All of them, and what that by the reference came from; in coding order."""

    gaussians: list[Gaussian]
    found: Found | None


def patches(seen: Tensor) -> Tensor:
    """What is compared of a place: its decoded neighbours, of length 1; [B, M, T, n], the middle last → [B, 4·M, n]."""
    return F.normalize(full_precision(seen[:, :, :-1]).flatten(1, 2), dim=1)


def search(queries: Tensor, keys: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar of the first `counts[i]` keys for each query i (Qian 2021, Eq. 4), some rows at a time.

    `queries` [B, F, n] and `keys` [B, F, K] have length 1, or 0; `counts` [n] ascends. Returns places [B, n] and
    similarities [B, 1, n] in [0, 1]: 0 where nothing is similar, and the place means nothing.
    """
    rows = max(1, min(MOST_QUERIES, MOST_SIMILARITIES // (len(keys) * keys.shape[2])))
    places, similarities = [], []
    for some, counts_of_some in zip(queries.split(rows, 2), counts.split(rows), strict=True):
        seen = max(1, int(counts_of_some[-1]))
        scores = (some.transpose(1, 2) @ keys[..., :seen]).mul_(LEVELS).round_()
        decoded = torch.arange(seen) < counts_of_some[:, None]
        best = scores.masked_fill_(~decoded.to(scores.device), 0.0).max(2)
        places.append(best.indices)
        similarities.append(best.values.clamp(0, LEVELS) / LEVELS)
    return torch.cat(places, 1), torch.cat(similarities, 1)[:, None]


def take(x: Tensor, places: Tensor) -> Tensor:
    """[B, C, K] at places [B, n] → [B, C, n]."""
    return x.gather(2, places[:, None].expand(-1, x.shape[1], -1))


class GRM(SlicedModel):
    """The network; a part is a diagonal of the raster, [B, M, n]."""

    registered_name = "grm"
    grid = "integer"

    def __init__(self, config: GRMConfig | None = None):
        super().__init__(config or GRMConfig())
        c = self.config
        self.slice_channels = (c.M,)
        self.predictions = 2 + c.reference
        normalized = GSDN if c.gsdn else GDN
        self.g_a = nn.Sequential(
            conv(3, c.N), normalized(c.N),
            conv(c.N, c.N), normalized(c.N),
            conv(c.N, c.N), normalized(c.N),
            conv(c.N, c.M),
        )  # fmt: skip
        self.g_s = nn.Sequential(
            deconv(c.M, c.N), normalized(c.N, inverse=True),
            deconv(c.N, c.N), normalized(c.N, inverse=True),
            deconv(c.N, c.N), normalized(c.N, inverse=True),
            deconv(c.N, 3),
        )  # fmt: skip
        self.h_a = nn.Sequential(conv(c.M, c.N, 3, 1), nn.LeakyReLU(), conv(c.N, c.N), nn.LeakyReLU(), conv(c.N, c.N))
        self.h_s = nn.Sequential(
            deconv(c.N, c.N), nn.LeakyReLU(), deconv(c.N, c.N), nn.LeakyReLU(), conv(c.N, 2 * c.M, 3, 1)
        )
        self.context_prediction = CausalConv(c.M, c.M, 5, middle=False)
        self.reference = CausalConv(c.M, c.M, 3, middle=True) if c.reference else None
        self.entropy_parameters = nn.ModuleList(
            nn.Sequential(
                conv(c.M, c.hidden, 1, 1), nn.LeakyReLU(), conv(c.hidden, c.hidden, 1, 1), nn.LeakyReLU(),
                conv(c.hidden, 2 * c.M, 1, 1),
            )
            for _ in range(self.predictions)
        )  # fmt: skip
        self.make_entropy_models(c.M, c.N)
        self.gaussian_conditional = IntegerGaussian()

    @property
    def walk_bytes(self) -> float:
        """What is compared: patches as gathered, five positions, and of their masked four in a row, and normalized."""
        return 8 * (5 + 4 + 4) * self.config.M / self.y_stride**2 if self.reference is not None else 0.0

    # ---- walk -----------------------------------------------------------------------------------------------

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        (hyper,) = self.bounded("h_s", self.h_s, (z_hat / self.gain("gain_z", quality, z_hat),), memory)
        if y_hat is None:
            return self._serial_walk(hyper, code_part)
        size = (y_hat.shape[-2], y_hat.shape[-1])
        *earlier, (mu, sigma) = [
            (in_raster_order(one.mu, size), in_raster_order(one.sigma, size))
            for one in self._predict_all(hyper, y_hat).gaussians
        ]
        for i, (mu_i, sigma_i) in enumerate(zip(split_diagonals(mu), split_diagonals(sigma), strict=True)):
            code_part(i, mu_i, sigma_i)
        return Walk(y_hat, mu, sigma, tuple(earlier) if self.training else ())

    def _predict_all(self, hyper: Tensor, y_hat: Tensor) -> Predictions:
        """At all positions at once."""
        known = y_hat.to(hyper.dtype)
        local = in_coding_order(self.context_prediction(known))
        first = self._update(0, local, None)
        found = None if self.reference is None else self._refer(self.reference, y_hat, known, first)
        return Predictions(self._refine(local, first, found, in_coding_order(hyper)), found)

    def _refer(self, reference: CausalConv, y_hat: Tensor, known: Tensor, first: Gaussian) -> Found:
        """At all positions at once; `known` is ŷ in the walk's precision."""
        height, width = y_hat.shape[-2:]
        features = in_coding_order(reference(known))
        with torch.no_grad(), torch.autocast(y_hat.device.type, enabled=False):
            in_order = diagonals(height, width)
            starts = torch.tensor([0, *accumulate(map(len, in_order))])
            counts = starts[:-1].repeat_interleave(starts.diff())
            padded = F.pad(known, (REACH, REACH, REACH, 0))
            compared = patches(reference.gather(padded, *_rows_and_columns(torch.cat(in_order), width)))
            places, similarity = search(compared, compared, counts)
            confidence = take(self._probability(in_coding_order(y_hat), first), places)
        return Found(take(features, places), similarity, confidence)

    def _serial_walk(self, hyper: Tensor, code_part: CodePart) -> Walk:
        """A diagonal after the other; what was decoded is kept as it will be compared and referred to."""
        batch, _, height, width = hyper.shape
        size, start = (height, width), 0
        hyper = in_coding_order(hyper)
        known = hyper.new_zeros(batch, self.config.M, height + REACH, width + 2 * REACH)
        referred = None if self.reference is None else Referred(self.reference, hyper)
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for i, positions in enumerate(diagonals(height, width)):
            end = start + len(positions)
            rows, columns = _rows_and_columns(positions, width)
            local = self.context_prediction.at(self.context_prediction.gather(known, rows, columns))
            first = self._update(0, local, None)
            found = None if referred is None else referred.find(known, rows, columns)
            last = self._refine(local, first, found, hyper[..., start:end])[-1]
            y_hat = code_part(i, last.mu, last.sigma)
            known[:, :, rows + REACH, columns + REACH] = y_hat.to(known.dtype)
            if referred is not None:
                referred.add(y_hat, self._probability(y_hat, first))
            parts.append((y_hat, last.mu, last.sigma))
            start = end
        y_hats, mus, sigmas = (join_diagonals(of_all, size) for of_all in zip(*parts, strict=True))
        return Walk(y_hats, mus, sigmas)

    def _update(self, k: int, features: Tensor, before: Gaussian | None) -> Gaussian:
        """What network k says of features [B, M, n], in addition to what was said before."""
        parameters = full_precision(self.entropy_parameters[k](features[:, :, None])[:, :, 0])
        log_sigma, mu = parameters.chunk(2, 1)
        return Gaussian(mu, log_sigma) if before is None else Gaussian(before.mu + mu, before.log_sigma + log_sigma)

    def _refine(self, local: Tensor, first: Gaussian, found: Found | None, hyper: Tensor) -> list[Gaussian]:
        """All predictions, by the reference where there is one and by the hyperprior's features [B, 2M, n]."""
        features, predicted = local, [first]
        if found is not None:
            features = local + (found.similarity * found.confidence).to(local.dtype) * found.features
            predicted.append(self._update(1, features, first))
        scale, shift = hyper.chunk(2, 1)
        return [*predicted, self._update(-1, features * (1 + scale) + shift, predicted[-1])]

    def _probability(self, y_hat: Tensor, prediction: Gaussian) -> Tensor:
        """Of ŷ [B, M, n], in cells of width 1 whatever the quantization step, mean over channels: [B, 1, n]."""
        likelihood = self.gaussian_conditional.likelihood_at(y_hat - prediction.mu, prediction.sigma)
        return likelihood.mean(1, keepdim=True)

    def entropy_walker(self, dtype: torch.dtype = torch.float64) -> GRM:
        walker = cast(GRM, super().entropy_walker(dtype))
        walker.context_prediction.use_matrix_products()
        if walker.reference is not None:
            walker.reference.use_matrix_products()
        return walker

    # ---- parts ----------------------------------------------------------------------------------------------

    def split_y(self, y: Tensor) -> list[Tensor]:
        return split_diagonals(y)

    def join_y(self, parts: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return join_diagonals(parts, size)

    def slice_of(self, part: int) -> int:
        return 0

    # ---- a starting point, and for people -------------------------------------------------------------------

    def init_from_images(self, x: Tensor) -> None:
        """Normalizations let pass what they are given."""
        for block in (*self.g_a, *self.g_s):
            if isinstance(block, GDN):
                block.set_identity()
        super().init_from_images(x)

    def set_first_guess(self, mu: Tensor, sigma: Tensor) -> None:
        bias_of(cast(nn.Sequential, self.entropy_parameters[0])[-1]).copy_(torch.cat([sigma.log(), mu]))

    def explanations(self, z_hat: Tensor, quality: Quality, y_hat: Tensor) -> dict[str, Tensor]:
        """`similarity` S and `confidence` U [1, h, w] of what each position refers to (Qian 2021, Fig. 10); `saved`
        [2, h, w], the bits that the second prediction, with the reference, saves there over the first, and the third,
        with the hyperprior, over that, summed over channels (its Fig. 9 has one), in cells of width 1. Without a
        reference there are two predictions, [1, h, w].
        """
        gaussians, found = self._predict_all(self.h_s(z_hat / self.gain("gain_z", quality, z_hat)), y_hat)
        values, size = in_coding_order(y_hat), (y_hat.shape[-2], y_hat.shape[-1])
        bits = torch.cat(
            [
                -self.gaussian_conditional.likelihood_at(values - one.mu, one.sigma).log2().sum(1, keepdim=True)
                for one in gaussians
            ],
            1,
        )
        maps = {"saved": -bits.diff(dim=1)}
        if found is not None:
            confidence = found.confidence * (found.similarity > 0)
            maps |= {"similarity": found.similarity, "confidence": confidence}
        return {name: in_raster_order(values[0], size) for name, values in maps.items()}


def _rows_and_columns(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return positions // width, positions % width


register("grm", GRM, GRMConfig())
register("grm-small", GRM, GRMConfig(N=64, M=128, hidden=384))
