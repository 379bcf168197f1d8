"""The colour transform (DDT) of one picture: its nine values by J **[ours]**.

Squared error is quadratic in K: with x̂ the picture before the transform, a few moments of its pixels hold all that it
depends on, so the syntax is fitted and quantized without going through the picture again. J then decides whether it
stays. Values that are clamped before the transform are left out: they would ask for what clamping gives anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tto.refine.operation import SideSearch
from tto.refine.problem import Candidate, Problem
from tto.refine.sides import error_weights, judge_sides
from tto.refine.state import KeepOn
from tto.side.bits import LARGEST_LEVEL
from tto.side.filter import bands
from tto.side.transform import SYNTAX_SIZE, Syntax, Transform, TransformCoder, encode_syntax

EXPONENTS = range(1, 6)
"""Of the quantization step, 2^−e, that are tried."""
LBFGS_STEPS = 60
SMALLEST_RIDGE = 1e-9


@dataclass(frozen=True)
class FitTransform(SideSearch):
    """The colour transform (CGOO): see `fit_transform`, which takes two steps."""

    steps: int = 2

    def search(self, problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
        return fit_transform(problem, candidate, keep_on)

    def possible(self, problem: Problem) -> bool:
        return TransformCoder in problem.side_coder


class ColorMoments(NamedTuple):
    """255²·MSE of x̂ + K·x̂ less that of x̂, as a function of K: each row of K has a quadratic of its own.

    `squares` [3, 3, 3] holds one matrix for each row, `products` [3, 3] is of errors and pixels.
    """

    squares: Tensor
    products: Tensor

    def change(self, K: Tensor) -> Tensor:
        """K [n, 3, 3] → [n]."""
        return torch.einsum("nri,rij,nrj->n", K, self.squares, K) - 2 * (K * self.products).sum((1, 2))

    def best_matrix(self) -> Tensor:
        """K of the smallest error, [1, 3, 3]: what a transform without syntax would reach."""
        ridge = SMALLEST_RIDGE * torch.eye(3).to(self.squares)
        return torch.linalg.solve(self.squares + ridge, self.products)[None]


def fit_transform(problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
    """The candidate with the syntax that suits it best, or with none, or as it was: whichever has the lowest J.

    `keep_on` is called with the best after every evaluation and may end the search. A gray picture is left alone.
    """
    if problem.grayscale:
        return candidate
    others = problem.side.without(Transform)
    with torch.no_grad():
        x_hat = problem.synthesise(candidate.y_hat)
        untransformed = others.on_picture(x_hat)
    found = problem.side_coder[TransformCoder].make(fit_syntax(problem, moments_of(problem, untransformed)))
    return judge_sides(problem, candidate, x_hat, (others.with_(found), others), keep_on)


@torch.no_grad()
def moments_of(problem: Problem, x_hat: Tensor) -> ColorMoments:
    """Of x̂ [1, 3, H, W], not clamped, against the original; float64, on the CPU, as some devices do not have it."""
    squares, products = torch.zeros(3, 3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for rows, *_ in bands(*x_hat.shape[2:]):
        of_rows = (x_hat[:, :, rows], problem.distortion.target(rows))
        values = (*of_rows, error_weights(problem.distortion, x_hat, rows))
        pixels, original, weights = (value[0].flatten(1).cpu().double() for value in values)
        squares += torch.einsum("rp,ip,jp->rij", weights, pixels, pixels)
        products += (weights * (original - pixels)) @ pixels.T
    return ColorMoments(squares, products)


def fit_syntax(problem: Problem, moments: ColorMoments) -> Syntax:
    """The quantized syntax that should lower J most, by λ·D of the moments and its own bits."""
    coder = problem.side_coder[TransformCoder]
    assert coder.modules is not None
    weight = problem.lambda_ * problem.pixels / problem.distortion.lambda_scale
    with torch.no_grad():
        start = coder.modules.ddt.encoder(problem.distortion.target().to(coder.device))
    values = _descend(coder.decoder, moments, weight, start.cpu().double())
    tries = [_settle(coder.decoder, moments, weight, values, exponent) for exponent in EXPONENTS]
    return min(tries, key=lambda found: found[1])[0]


def _descend(decoder: nn.Module, moments: ColorMoments, weight: float, start: Tensor) -> Tensor:
    syntax = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([syntax], max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = weight * moments.change(decoder(syntax)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return syntax.detach()


@torch.no_grad()
def _settle(
    decoder: nn.Module, moments: ColorMoments, weight: float, values: Tensor, exponent: int
) -> tuple[Syntax, float]:
    """Rounds to multiples of 2^−exponent, then goes to the better neighbour while there is one. With its cost."""
    moves = torch.cat([torch.eye(SYNTAX_SIZE), -torch.eye(SYNTAX_SIZE), torch.zeros(1, SYNTAX_SIZE)]).double()
    levels = (values * 2**exponent).round().nan_to_num().clamp(-LARGEST_LEVEL, LARGEST_LEVEL)
    cost = float("inf")
    while True:
        around = (levels + moves).clamp(-LARGEST_LEVEL, LARGEST_LEVEL)
        errors = weight * moments.change(decoder(around * 2.0**-exponent))
        bits = torch.tensor([8.0 * len(encode_syntax(_syntax(row, exponent))) for row in around])
        lowest = int((errors + bits).argmin())
        if float(errors[lowest] + bits[lowest]) >= cost:
            return _syntax(levels[0], exponent), cost
        levels, cost = around[lowest : lowest + 1], float(errors[lowest] + bits[lowest])


def _syntax(levels: Tensor, exponent: int) -> Syntax:
    return Syntax(tuple(int(level) for level in levels), exponent)
