"""Discrete descent: symbols of a rounded candidate moved by ±1 where that should lower J **[ours]**.

At fixed symbols, each one's effect on J is predicted: its own bits exactly; distortion and the bits of later slices,
whose μ and σ depend on it, by the gradient; and by the curvature of distortion. The most promising are flipped
together, and kept if J of all of them together is lower, else half as many are tried. This is what rate-distortion
optimized quantization does in a classical encoder, with a network's derivatives for the transform's. Only the best
flip of each position and part goes into a batch.

That descent ends where no batch pays. Annealing comes further: it makes each flip with a probability that its predicted
change of J and a falling temperature give, and looks at J only in the end. Proposing all symbols' moves at once from
one gradient is the discrete Langevin sampler's idea (Zhang 2022, "A Langevin-like Sampler for Discrete Distributions").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from base_models import BaseModel
from tto.refine.operation import Operation
from tto.refine.problem import Candidate, Evaluation, Problem
from tto.refine.schedules import Geometric, Schedule
from tto.refine.state import LAYOUT, KeepOn, State

FIRST_SHARE = 1.0
"""Of all flips predicted to pay, tried first; half of it after every batch that did not."""
ANNEALED_SHARE = 0.8
"""Probability of the surest flip in one step of annealing: what pays by itself may not beside its neighbours' flips."""
CURVATURE_EVERY = 10
"""Steps of annealing for which one estimate of curvature serves."""


@dataclass(frozen=True)
class AnnealSymbols(Operation):
    """Flips of symbols at random, `temperature` in bits: see `anneal_symbols`."""

    steps: int
    temperature: Schedule = Geometric(2.0, 0.1)

    def run(self, state: State) -> None:
        parts = state.parts(self.steps)
        state.latest = state.with_memory(
            lambda: anneal_symbols(state.problem, state.latest, self.temperature, parts, state.generator)
        )
        state.keep(state.latest)


@dataclass(frozen=True)
class FlipSymbols(Operation):
    """Discrete descent on the symbols of the latest candidate: see `flip_symbols`. Steps are evaluations."""

    steps: int

    def run(self, state: State) -> None:
        keep_on = state.keeping(self.steps)
        state.with_memory(lambda: flip_symbols(state.problem, state.latest, keep_on))
        state.latest = state.best


class Prediction(NamedTuple):
    """For each symbol of y the better of +1 and −1, and the change of J in bits it should bring, each [1, M, h, w].

    `curvature` is the second derivative of λ·D in bits, averaged over each channel's positions, [1, M, 1, 1].
    """

    moves: Tensor
    change: Tensor
    curvature: Tensor


class Symbols(NamedTuple):
    """Integers of one candidate: y [1, M, h, w], z [1, N, hz, wz]."""

    y: Tensor
    z: Tensor


class Descent(NamedTuple):
    """How far `flip_symbols` has come: the best candidate, what the next batch of flips begins with, and how many
    evaluations there may be.
    """

    best: Candidate
    share: float = FIRST_SHARE
    curvature: Tensor | None = None
    left: int = 0


def symbols_of(problem: Problem, candidate: Candidate) -> Symbols:
    return Symbols(candidate.symbols, problem.z_symbols(candidate.z))


def at_symbols(problem: Problem, symbols: Symbols, qp: int) -> Evaluation:
    """Where fixed symbols lie, whatever μ is."""
    return Evaluation(problem, symbols.y, symbols.z, qp, rounding=None)


def candidate_at(problem: Problem, symbols: Symbols, qp: int) -> Candidate:
    return problem.candidate_of(problem.evaluate(at_symbols(problem, symbols, qp)).outcome, qp)


def flip_symbols(problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
    """Flips until nothing more is predicted to pay, or no batch does, or `keep_on`, called with the best after every
    evaluation (those with gradients, too), leaves none to try a prediction's flips. Returns a candidate that is no
    worse.
    """
    descent = Descent(candidate, left=2)
    while descent.left > 1:
        descent = _descended(problem, descent, keep_on)
    return descent.best


def _descended(problem: Problem, descent: Descent, keep_on: KeepOn) -> Descent:
    """After one prediction and batches of its flips until one pays; all that is freed before the next prediction."""
    best, share, symbols = descent.best, descent.share, symbols_of(problem, descent.best)
    moves, predicted, curvature = predict(problem, symbols, best.qp, descent.curvature)
    predicted = least_of_each_part(predicted, problem.model)
    order = predicted.flatten().argsort()[: int((predicted < 0).sum())]
    left = keep_on(best)
    while left and len(order) * share >= 1:
        found = candidate_at(problem, _flipped(symbols, moves, order[: int(len(order) * share)]), best.qp)
        if found.J < best.J:
            return Descent(found, share, curvature, keep_on(found))
        share /= 2
        left = keep_on(best)
    return Descent(best, share, curvature)


def anneal_symbols(
    problem: Problem, candidate: Candidate, temperature: Schedule, parts: Iterable[float], generator: torch.Generator
) -> Candidate:
    """Flips at random from the symbols of `candidate`, one step for each of `parts`, the part of it all that is done.

    A flip predicted to change J by b bits is made with probability `ANNEALED_SHARE` / (1 + exp(b / temperature)).
    What it ends with may be worse than `candidate`.
    """
    symbols, curvature = symbols_of(problem, candidate), None
    for step, done in enumerate(parts):
        prediction = predict(problem, symbols, candidate.qp, curvature if step % CURVATURE_EVERY else None)
        symbols, curvature = _annealed(problem, symbols, prediction, temperature(done), generator), prediction.curvature
        del prediction  # before the next one is made
    return candidate_at(problem, symbols, candidate.qp)


def _annealed(
    problem: Problem, symbols: Symbols, prediction: Prediction, temperature: float, generator: torch.Generator
) -> Symbols:
    predicted = least_of_each_part(prediction.change, problem.model)
    probability = ANNEALED_SHARE * torch.sigmoid(-predicted / temperature)
    chosen = torch.rand(probability.shape, generator=generator, device=probability.device) < probability
    return Symbols(symbols.y + prediction.moves * chosen, symbols.z)


def least_of_each_part(predicted: Tensor, model: BaseModel) -> Tensor:
    """`predicted` [1, M, h, w] where it is the least of its position and part, elsewhere infinity.

    Flips at one position share the pixels that they mend and the contexts that they shift, so what each is predicted
    to bring alone they do not bring together.
    """
    parts = model.split_y(predicted)
    least = [torch.where(part == part.amin(1, keepdim=True), part, torch.inf) for part in parts]
    return model.join_y(least, (predicted.shape[-2], predicted.shape[-1]))


def _flipped(symbols: Symbols, moves: Tensor, chosen: Tensor) -> Symbols:
    y = symbols.y.flatten().clone()
    y[chosen] += moves.flatten()[chosen]
    return Symbols(y.view_as(symbols.y).contiguous(memory_format=LAYOUT), symbols.z)


def predict(problem: Problem, symbols: Symbols, qp: int, curvature: Tensor | None = None) -> Prediction:
    """What flips of single symbols should bring; an earlier prediction's `curvature` saves a backward pass."""
    weight = problem.lambda_ * problem.pixels
    y = symbols.y.clone().requires_grad_(True)
    found = problem.evaluate(
        at_symbols(problem, Symbols(y, symbols.z), qp)._replace(
            loss=lambda outcome: outcome.bits + weight * outcome.distortion,
            leaves=(y,),
            exact=False,
            projection=partial(random_signs, problem, y.detach()) if curvature is None else None,
        )
    )
    outcome, (gradient,) = found.outcome, found.gradients
    if curvature is None:
        curvature = weight * _curvature(problem, outcome.x_hat, *found.projected)
    u = symbols.y.clone().requires_grad_(True)
    own = problem.symbol_bits(u, outcome, qp)
    (own_gradient,) = torch.autograd.grad(own.sum(), u)
    with torch.no_grad():
        slope = gradient - own_gradient
        changes = torch.stack([
            sign * slope + 0.5 * curvature + problem.symbol_bits(symbols.y + sign, outcome, qp) - own
            for sign in (1.0, -1.0)
        ])  # fmt: skip
        predicted, which = changes.min(0)
        return Prediction(1.0 - 2.0 * which, predicted, curvature)


def random_signs(problem: Problem, like: Tensor) -> Tensor:
    """[1, 3, H, W], the same every time."""
    shape = (1, 3, problem.height, problem.width)
    generator = torch.Generator(like.device).manual_seed(0)
    bits = torch.randint(0, 2, shape, generator=generator, device=like.device, dtype=like.dtype)
    return bits.mul_(2).sub_(1)


def _curvature(problem: Problem, x_hat: Tensor, projected: Tensor) -> Tensor:
    """Second derivative of distortion for each symbol, [1, M, 1, 1]: Gauss-Newton's diagonal, averaged over positions.

    J is the Jacobian of the picture, later slices' μ and residual prediction included. For random signs v the square
    of Jᵀv, `projected`, has the diagonal of JᵀJ as its mean (Hutchinson 1989); over a channel's positions one sample
    is enough.
    """
    return (projected**2).mean((2, 3), keepdim=True) * problem.distortion.curvature(x_hat)
