"""The adaptive filter of one picture: its coefficients by least squares, then rounded by J **[ours]**.

Squared error is quadratic in the coefficients of a class: with x̂ the picture before the filter, a matrix and a vector
for each class hold all that it depends on. Levels are chosen one tap at a time by what they do to that and the bits
that they take by the counts of the levels as they are. The true J then decides whether the filter stays.

Shapes: `R` rows of coefficients (classes, then chroma), `T` pairs of taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tto.refine.distortion import Distortion
from tto.refine.memory import attempted
from tto.refine.operation import SideSearch
from tto.refine.problem import Candidate, Problem
from tto.refine.sides import error_weights, judge_sides
from tto.refine.state import KeepOn
from tto.side.bits import LARGEST_LEVEL, LevelModel
from tto.side.filter import (
    BLOCK,
    CLASSES,
    RINGS,
    ROWS,
    TAPS,
    Band,
    Filter,
    FilterCoder,
    FilterLevels,
    apply_filter,
    bands,
    block_classes,
    luma_of,
    second_differences,
)

EXPONENTS = range(5, 11)
"""Of the quantization step, 2^−e, that are tried."""
PASSES = 8
"""Over all taps, before each of which levels are priced anew."""
RIDGE = 1e-6
RATE_RIDGE = 0.7
"""Bits for the square of a level: with it the search starts where levels are small, without it at the least error."""


@dataclass(frozen=True)
class FitFilter(SideSearch):
    """See `fit_filter`, which takes two steps."""

    steps: int = 2

    def search(self, problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
        return attempted(lambda: fit_filter(problem, candidate, keep_on), candidate)


class FilterMoments(NamedTuple):
    """255²·MSE with coefficients c less that without is, row by row, c·squares·c − 2·products·c.

    `squares` [R, T, T], `products` [R, T], float64.
    """

    squares: np.ndarray
    products: np.ndarray

    def best(self, ridge: float = RIDGE) -> np.ndarray:
        """Coefficients [R, T] of the smallest error, with `ridge` times the sum of their squares added."""
        return np.linalg.solve(self.squares + ridge * np.eye(len(TAPS)), self.products[..., None])[..., 0]


def fit_filter(problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
    """The candidate with the filter that suits it best, or with none, or as it was: whichever has the lowest J.

    `keep_on` is called with the best after every evaluation and may end the search.
    """
    with torch.no_grad():
        x_hat = problem.synthesise(candidate.y_hat)
    found = problem.side_coder[FilterCoder].make(fit_levels(problem, moments_of(problem, x_hat)))
    sides = (problem.side.with_(found), problem.side.without(Filter))
    return judge_sides(problem, candidate, x_hat, sides, keep_on)


def finished(problem: Problem, best: Candidate) -> Candidate:
    """The best candidate of a stage, with the filter that suits it now."""
    return FitFilter().search(problem, best, lambda best: True)


@torch.no_grad()
def moments_of(problem: Problem, x_hat: Tensor) -> FilterMoments:
    """Of x̂ [1, 3, H, W] before the filter, not clamped, against the original; chroma's after luma's best.

    Values that clamping brings to where they belong are left out, and a transform that follows the filter is taken for
    a shift of the error.
    """
    squares, products = np.zeros((ROWS, len(TAPS), len(TAPS))), np.zeros((ROWS, len(TAPS)))
    others = problem.side.without(Filter).on_picture(x_hat)
    for band in bands(*x_hat.shape[2:]):
        _add_luma(squares, products, problem.distortion, x_hat, others, band)
    if problem.grayscale:
        return FilterMoments(squares, products)
    best = torch.from_numpy(FilterMoments(squares, products).best())
    best[CLASSES] = 0.0
    change = apply_filter(x_hat, best.to(x_hat)).sub_(x_hat)
    for band in bands(*x_hat.shape[2:]):
        _add_chroma(squares[CLASSES], products[CLASSES], problem.distortion, x_hat, others, change, band)
    return FilterMoments(squares, products)


def _add_luma(
    squares: np.ndarray, products: np.ndarray, distortion: Distortion, x_hat: Tensor, others: Tensor, band: Band
) -> None:
    rows, around, inside = band
    luma = luma_of(x_hat[:, :, around])
    features = torch.cat([plane[:, :, inside].flatten(1) for plane in second_differences(luma)])
    classes = block_classes(luma).repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    classes = classes[: luma.shape[2], : luma.shape[3]][inside].flatten()
    error = distortion.target(rows).to(x_hat) - others[:, :, rows]
    weights = error_weights(distortion, x_hat, rows)
    weight, pull = weights.sum(1).flatten(), (weights * error).sum(1).flatten()
    counts, order = classes.bincount(minlength=CLASSES).tolist(), classes.argsort(stable=True)
    by_class = (values[..., order].split(counts, -1) for values in (features, weight, pull))
    for number, (own, weight, pull) in enumerate(zip(*by_class, strict=True)):
        squares[number] += ((own * weight) @ own.T).cpu().double().numpy()
        products[number] += (own @ pull).cpu().double().numpy()


def _add_chroma(
    squares: np.ndarray,
    products: np.ndarray,
    distortion: Distortion,
    x_hat: Tensor,
    others: Tensor,
    change: Tensor,
    band: Band,
) -> None:
    """To one row, after a `change` of x̂ by luma's kernels."""
    rows, around, inside = band
    part = x_hat[:, :, around]
    planes = second_differences((part - luma_of(part)).transpose(0, 1))
    chroma = x_hat.new_empty(len(TAPS), x_hat[:, :, rows].numel())
    for of_tap, plane in zip(chroma, planes, strict=True):
        of_tap.copy_(plane[:, :, inside].flatten())
    error = distortion.target(rows).to(x_hat) - others[:, :, rows] - change[:, :, rows]
    weight = error_weights(distortion, x_hat, rows)
    squares += ((chroma * weight.flatten()) @ chroma.T).cpu().double().numpy()
    products += (chroma @ (weight * error).flatten()).cpu().double().numpy()


def fit_levels(problem: Problem, moments: FilterMoments) -> FilterLevels:
    """The rounded coefficients that should lower J most, by λ·D of the moments and what they cost."""
    weight = problem.lambda_ * problem.pixels / problem.distortion.lambda_scale
    moments = FilterMoments(weight * moments.squares, weight * moments.products)
    tries = [_settle(moments, exponent) for exponent in EXPONENTS]
    return min(tries, key=lambda found: found[1])[0]


def _settle(moments: FilterMoments, exponent: int) -> tuple[FilterLevels, float]:
    """Levels in units of 2^−exponent, and the change of J in bits by them."""
    step = 2.0**-exponent
    moments = FilterMoments(moments.squares * step**2, moments.products * step)
    tries = [_descend(moments, np.round(moments.best(ridge))) for ridge in (RIDGE, RATE_RIDGE)]
    levels, cost = min(tries, key=lambda found: found[1])
    return FilterLevels(tuple(tuple(row) for row in levels.tolist()), exponent), cost


def _descend(moments: FilterMoments, start: np.ndarray) -> tuple[np.ndarray, float]:
    """From whole levels [R, T] to where no single one of them should move; with their cost in bits."""
    squares, products = moments
    levels = np.clip(start, -LARGEST_LEVEL, LARGEST_LEVEL).astype(np.int64)
    rows, is_chroma = np.arange(ROWS), (np.arange(ROWS) == CLASSES).astype(int)
    for _ in range(PASSES):
        before, costs = levels.copy(), level_bits(levels)
        for tap in range(len(TAPS)):
            present, curvature = levels[:, tap], squares[:, tap, tap]
            slope = products[:, tap] - np.einsum("rt,rt->r", squares[:, tap], levels) + curvature * present
            free = np.round(slope / np.maximum(curvature, RIDGE)).astype(np.int64)
            tried = np.stack([present, present - 1, present + 1, free, free - np.sign(free), 0 * free], 1)
            tried = np.clip(tried, -LARGEST_LEVEL, LARGEST_LEVEL)
            change = curvature[:, None] * tried**2 - 2 * slope[:, None] * tried
            bits = costs[is_chroma[:, None], RINGS[tap], np.abs(tried)]
            levels[:, tap] = tried[rows, (change + bits).argmin(1)]
        if np.array_equal(levels, before):
            break
    distortion = np.einsum("rs,rst,rt->", levels, squares, levels) - 2 * (products * levels).sum()
    return levels, float(distortion + level_bits(levels)[is_chroma[:, None], RINGS, np.abs(levels)].sum())


def level_bits(levels: np.ndarray) -> np.ndarray:
    """About what each magnitude costs among levels [R, T], its sign included: [2 (luma, chroma), rings, magnitudes]."""
    contexts = np.minimum(np.arange(LARGEST_LEVEL), LevelModel.MAGNITUDES - 1)
    bits = np.zeros((2, max(RINGS) + 1, LARGEST_LEVEL + 1))
    for is_chroma, rows in enumerate((levels[:CLASSES], levels[CLASSES:])):
        for ring in range(max(RINGS) + 1):
            ends = np.bincount(np.abs(rows[:, np.array(RINGS) == ring]).ravel(), minlength=LARGEST_LEVEL + 1)
            goes_on = ends[::-1].cumsum()[::-1][1:]
            on, off = (np.bincount(contexts, counts) for counts in (goes_on, ends[:-1]))
            chance = ((on + 0.5) / (on + off + 1))[contexts]
            bits[is_chroma, ring, 1:] = 1 - np.log2(chance).cumsum()
            bits[is_chroma, ring, :-1] -= np.log2(1 - chance)
    return bits
