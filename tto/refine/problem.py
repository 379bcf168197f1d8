"""What is minimized for one picture: J = R + λ·D of latents, rounded in whichever way.

Several pictures of one size of latents go through the network together: `evaluate` takes an evaluation of each.
Shapes: `M` channels of y, `N` of z, `h w` size of y, `hz wz` of z, `H W` of the picture (not padded).

    z ─ round ─ z_hat ─┐                               ┌─ compensation ─ g_s ─ crop ─ filter ─ transform ─ clamp ─ D
    y ─────────────── walk: round each part at its μ ─┴─ ŷ after LRP     └─ its last weights are the adaptation's
                        └─ R of the same rounded values, and of the side information
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from base_models import BaseModel, Memory
from base_models.entropy_models import GaussianConditional
from tto.container import step_size
from tto.reconstruction import Frame, reconstruct, synthesise
from tto.refine.distortion import Distortion
from tto.refine.rate import FactorizedBits, Rate, TotalBits, gaussian_bits, total_bits
from tto.side.coder import SideCoder
from tto.side.side import NO_SIDE, Side

Rounding = Callable[[Tensor], Tensor]


class Outcome(NamedTuple):
    """One evaluation. `bits` and `distortion` are scalars, the latter NaN where no loss was asked for; `y`, `z` are the
    rounded latents before LRP.

    `y_hat` is after LRP, `x_hat` the clamped picture [1, 3, H, W]; `sigma` is not divided by the step, and None under a
    factorized prior of y.
    """

    bits: Tensor
    distortion: Tensor
    y: Tensor
    z: Tensor
    y_hat: Tensor
    x_hat: Tensor
    mu: Tensor
    sigma: Tensor | None


class Evaluation(NamedTuple):
    """What is to be evaluated: latents y [1, M, h, w] and z [1, N, hz, wz] of a problem. In float32 unless it is only
    for gradients.

    `rounding` is called with z, then with each part, in units of the step and centred on what the model's grid says;
    without it y and z are integers already, wherever μ is. `rate` prices parts.
    `loss`: whose gradients for `leaves` are wanted, each of one picture; with `exact` the outcome is, too. `projection`
    makes a vector [1, 3, H, W] whose product with the picture's Jacobian for `leaves` is wanted.
    """

    problem: Problem
    y: Tensor
    z: Tensor
    qp: int
    rounding: Rounding | None
    rate: Rate = gaussian_bits
    loss: Callable[[Outcome], Tensor] | None = None
    leaves: tuple[Tensor, ...] = ()
    exact: bool = True
    projection: Callable[[], Tensor] | None = None


class Evaluated(NamedTuple):
    """Without a graph. `gradients` and `projected` have the shapes of the leaves."""

    outcome: Outcome
    gradients: tuple[Tensor, ...] = ()
    projected: tuple[Tensor, ...] = ()


def evaluate(evaluations: Sequence[Evaluation]) -> list[Evaluated]:
    """Evaluations that differ in nothing the network sees but the values of latents."""
    first = evaluations[0]
    model, reduced = first.problem.model, nullcontext()
    if first.loss is None:
        with torch.no_grad():
            return [Evaluated(outcome) for outcome in forward(evaluations, model)]
    if not first.exact:
        reduced = first.problem.for_gradients()
        models = {one.problem.model_for_gradients for one in evaluations}
        model = models.pop() if len(models) == 1 else model
    with torch.enable_grad(), reduced:
        outcomes = forward(evaluations, model)
    pairs = list(zip(evaluations, outcomes, strict=True))
    losses = [one.loss(outcome) for one, outcome in pairs if one.loss is not None]
    projecting = [one for one in evaluations if one.projection is not None]
    products = [Product.apply(outcome.x_hat, one.projection) for one, outcome in pairs if one.projection is not None]
    gradients = iter(torch.autograd.grad(sum(losses[1:], losses[0]), _leaves(evaluations), retain_graph=bool(products)))
    projected: Iterator[Tensor] = iter(())
    if products:
        projected = iter(torch.autograd.grad(products, _leaves(projecting)))
    return [
        Evaluated(
            Outcome(*(value if value is None else value.detach() for value in outcome)),  # pyright: ignore
            tuple(next(gradients) for _ in one.leaves),
            tuple(next(projected) for _ in one.leaves if one.projection is not None),
        )
        for one, outcome in pairs
    ]


def _leaves(evaluations: Sequence[Evaluation]) -> list[Tensor]:
    return [leaf for one in evaluations for leaf in one.leaves]


def forward(evaluations: Sequence[Evaluation], model: BaseModel) -> list[Outcome]:
    """One walk and one synthesis of evaluations that share model, quality and size of latents; `model` may be its copy.

    On the integer grid rounding does not depend on the walk, so all of ŷ is known before it, contexts are computed in
    parallel and y is priced as a whole; what the estimate counts is what is coded: ŷ = round(y/Δ)·Δ.
    """
    first, on_integers = evaluations[0].problem, model.grid == "integer"
    height, width = evaluations[0].y.shape[-2:]
    steps, size = [step_size(one.qp) for one in evaluations], (height, width)
    z_rounded = [_rounded(one, one.z, one.problem.medians) for one in evaluations]
    z_hats = [z + one.problem.medians for one, z in zip(evaluations, z_rounded, strict=True)]
    parts = [] if on_integers else [model.split_y(one.y) for one in evaluations]
    known = None
    rounded: list[list[Tensor]] = [[] for _ in evaluations]  # parts, in steps less μ
    whole: list[Tensor] = []  # all of y, in steps
    if on_integers:
        whole = [_rounded(one, one.y, step=step) for one, step in zip(evaluations, steps, strict=True)]
        known = _batch([symbols * step for symbols, step in zip(whole, steps, strict=True)])
    given = [] if known is None else model.split_y(known)

    def code_part(i: int, mu: Tensor, sigma: Tensor | None) -> Tensor:
        if on_integers:
            return given[i]
        y_hat = []
        for n, (one, mu_n) in enumerate(zip(evaluations, mu.split(1), strict=True)):
            rounded[n].append(_rounded(one, parts[n][i], mu_n, steps[n]))
            if sigma is not None:
                bits[n].append(bits_of(one, rounded[n][i], sigma[n : n + 1] / steps[n], 0.0))
            y_hat.append(rounded[n][i] * steps[n] + mu_n)
        return _batch(y_hat)

    def bits_of(one: Evaluation, symbols: Tensor, sigma: Tensor, mean: Tensor | float) -> Tensor:
        return price(partial(one.rate, smallest=first.smallest_scale), symbols, sigma, mean)

    price = total_bits if first.memory is None else TotalBits.apply
    bits = [[one.problem.z_bits(z).sum()] for one, z in zip(evaluations, z_rounded, strict=True)]
    walk = model.walk(_batch(z_hats), first.quality, code_part, known, first.memory)
    y_hats, mus = walk.y_hat.split(1), walk.mu.split(1)
    sigmas = [None] * len(evaluations) if walk.sigma is None else walk.sigma.split(1)
    frames, sides = zip(*((one.problem.frame, one.problem.side) for one in evaluations), strict=True)
    x_hats = synthesise(model, first.quality, y_hats, frames, sides, first.memory)
    outcomes = []
    for n, (problem, qp) in enumerate((one.problem, one.qp) for one in evaluations):
        x_hat = cast(Tensor, Clamped.apply(problem.side.on_picture(x_hats[n])))
        distortion = x_hat.new_full((), math.nan)
        if evaluations[n].loss is not None:
            with torch.autocast(x_hat.device.type, enabled=False):  # differences of nearly equal pixels
                distortion = problem.distortion(x_hat)
        symbols, sigma = whole[n] if on_integers else model.join_y(rounded[n], size), sigmas[n]
        if sigma is None:
            bits[n].append(problem.y_bits(qp)(symbols).sum())
        elif on_integers:
            bits[n].append(bits_of(evaluations[n], symbols, sigma / steps[n], mus[n] / steps[n]))
        total = sum(bits[n][1:], bits[n][0]) + problem.side.bits
        y = symbols * steps[n] + (0.0 if on_integers else mus[n])
        outcomes.append(Outcome(total, distortion, y, z_hats[n], y_hats[n], x_hat, mus[n], sigma))
    return outcomes


def _rounded(evaluation: Evaluation, latent: Tensor, centre: Tensor | float = 0.0, step: float = 1.0) -> Tensor:
    """In steps from `centre`."""
    return latent if evaluation.rounding is None else evaluation.rounding((latent - centre) / step)


class Clamped(torch.autograd.Function):
    """A picture's `clamp(0, 1)`, of which the backward pass needs a byte for each value and not the values."""

    @staticmethod
    def forward(ctx, x_hat: Tensor) -> Tensor:
        ctx.save_for_backward((x_hat > 0) & (x_hat < 1))
        return x_hat.clamp(0, 1)

    @staticmethod
    def backward(ctx, *upstream: Tensor) -> Tensor:
        (gradient,), (within,) = upstream, ctx.saved_tensors
        return torch.where(within, gradient, 0.0)


class Product(torch.autograd.Function):
    """Of a picture and a vector, for its gradient alone: the vector is made for that and gone after its first use."""

    @staticmethod
    def forward(ctx, x_hat: Tensor, vector: Callable[[], Tensor]) -> Tensor:
        ctx.vector = vector
        return x_hat.new_zeros(())

    @staticmethod
    def backward(ctx, *upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.vector().mul_(*upstream), None


def _batch(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def evaluate_alone(evaluation: Evaluation) -> Evaluated:
    return evaluate([evaluation])[0]


@dataclass(frozen=True)
class Problem:
    """One picture to refine with one model at one quality; `lambda_` weighs distortion in bits per pixel.

    `side` is in force in every evaluation, its bits included; `side_coder` makes more of it.
    `bfloat16`: whether evaluations that only give gradients run the network in it, and `lowered` the model for that if
    its weights are to be converted only once (`BaseModel.lowered`). `memory`: bytes that
    activations may take; where they take more, backward passes compute them anew. `evaluate`: who sees to evaluations.
    """

    model: BaseModel
    quality: float
    lambda_: float
    height: int
    width: int
    distortion: Distortion
    grayscale: bool = False
    side: Side = NO_SIDE
    side_coder: SideCoder = SideCoder()
    bfloat16: bool = False
    lowered: BaseModel | None = None
    memory: Memory = None
    evaluate: Callable[[Evaluation], Evaluated] = evaluate_alone

    @property
    def frame(self) -> Frame:
        return Frame(self.height, self.width, self.grayscale)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @cached_property
    def z_bits(self) -> FactorizedBits:
        return FactorizedBits(self.model.z_tables(self.model.z_step(self.quality)), self.medians.device)

    def y_bits(self, qp: int) -> FactorizedBits:
        """Of y in steps, less its medians, under a factorized prior."""
        if qp not in self._y_bits:
            self._y_bits[qp] = FactorizedBits(self.model.y_tables(step_size(qp), self.quality), self.medians.device)
        return self._y_bits[qp]

    @cached_property
    def _y_bits(self) -> dict[int, FactorizedBits]:
        return {}

    @cached_property
    def smallest_scale(self) -> float:
        """What smaller σ count as, in steps; of a factorized prior nothing."""
        prior = self.model.y_prior
        return prior.smallest_scale if isinstance(prior, GaussianConditional) else 0.0

    @cached_property
    def medians(self) -> Tensor:
        return self.model.z_medians()

    def for_gradients(self) -> torch.autocast:
        """Around an evaluation of which only gradients are used; candidates are always judged in float32."""
        return torch.autocast(self.medians.device.type, torch.bfloat16, enabled=self.bfloat16)

    @property
    def model_for_gradients(self) -> BaseModel:
        """For evaluations inside `for_gradients`. Weights of a picture's own are converted every time."""
        own = self.side.on_network(self.model) is not self.model
        return self.model if own or self.lowered is None or not self.bfloat16 else self.lowered

    def picture(self, y_hat: Tensor) -> Tensor:
        """ŷ → x̂ [1, 3, H, W] in [0, 1], gray where the picture is."""
        x_hat = reconstruct(self.model, self.quality, y_hat, self.frame, self.side, self.memory)
        return x_hat.clamp(0, 1)

    def synthesise(self, y_hat: Tensor) -> Tensor:
        """ŷ → x̂ [1, 3, H, W], not clamped, before what side information does to pictures."""
        return synthesise(self.model, self.quality, [y_hat], [self.frame], [self.side], self.memory)[0]

    def z_symbols(self, z_hat: Tensor) -> Tensor:
        return (z_hat - self.medians).round()

    def y_symbols(self, outcome: Outcome, qp: int) -> Tensor:
        """What `Evaluation.rounding` gave for y, for good: in steps, and less μ where the model's grid says so."""
        centre = 0.0 if self.model.grid == "integer" else outcome.mu
        return ((outcome.y - centre) / step_size(qp)).round()

    def symbol_bits(self, symbols: Tensor, outcome: Outcome, qp: int) -> Tensor:
        """What symbols of y [1, M, h, w] cost with an outcome's μ and σ."""
        if outcome.sigma is None:
            return self.y_bits(qp)(symbols)
        step = step_size(qp)
        mean = outcome.mu / step if self.model.grid == "integer" else 0.0
        return gaussian_bits(symbols, outcome.sigma / step, mean, self.smallest_scale)

    def cost(self, outcome: Outcome, rate_weight: float = 1.0) -> Tensor:
        """J in bits per pixel, its R times `rate_weight`."""
        return rate_weight * outcome.bits / self.pixels + self.lambda_ * outcome.distortion

    def judge(self, y: Tensor, z: Tensor, qp: int, rounding: Rounding = torch.round) -> Outcome:
        """What latents give that are rounded for good."""
        return self.evaluate(Evaluation(self, y, z, qp, rounding)).outcome

    def candidate(self, y: Tensor, z: Tensor, qp: int) -> Candidate:
        """Latents rounded for good, and their estimated figures."""
        return self.candidate_of(self.judge(y, z, qp), qp)

    @torch.no_grad()
    def candidate_of(self, outcome: Outcome, qp: int) -> Candidate:
        """A candidate from an evaluation whose rounding was hard, its distortion that of 8-bit pixels."""
        y, z, y_hat = (value.detach() for value in (outcome.y, outcome.z, outcome.y_hat))
        symbols, bits = self.y_symbols(outcome, qp).detach(), float(outcome.bits) - self.side.bits
        return self.with_picture(Rounded(y, z, qp, symbols, y_hat, bits), outcome.x_hat)

    @torch.no_grad()
    def with_picture(self, rounded: Rounded, x_hat: Tensor) -> Candidate:
        """Rounded latents of which this problem's side information makes x̂ [1, 3, H, W], clamped."""
        decoded = x_hat.mul(255).round_().div_(255)
        bpp, distortion = (rounded.bits + self.side.bits) / self.pixels, float(self.distortion(decoded))
        mse = float(decoded.mul_(255).round_().sub_(self.distortion.levels).square_().mean())
        psnr = 10 * math.log10(255**2 / max(mse, 1e-10))
        latents = (rounded.y, rounded.z, rounded.qp, rounded.symbols, rounded.y_hat, rounded.bits)
        return Candidate(*latents, self.side, bpp, distortion, psnr, bpp + self.lambda_ * distortion)


@dataclass(frozen=True)
class Rounded:
    """Latents that round to the wanted symbols on any machine.

    y is ŷ before LRP: each value lies in the middle of its cell, so that the coder's own μ, which differs from ours by
    float32's precision, gives the same symbols. `symbols` of y are as `Problem.y_symbols` gives them, `y_hat` is after
    LRP, and `bits` are estimated, without those of side information.
    """

    y: Tensor
    z: Tensor
    qp: int
    symbols: Tensor
    y_hat: Tensor
    bits: float


@dataclass(frozen=True)
class Candidate(Rounded):
    """Latents, the side information beside them, and estimated figures of both."""

    side: Side
    bpp: float
    distortion: float
    psnr: float
    J: float
