"""Masked compensation (MSC): which latent positions get a code, and which one, by J **[ours]**.

The change of J by each code at each position is predicted: bits of mask and code; distortion by its gradient at
ŷ + m ⊙ c and by its curvature along the code. The most promising changes are made together and kept where the true J
falls, else half as many are tried. Taking a code away is one of the changes, so every code pays for itself.

Shapes: `P` = h·w positions, `M` channels of y, `K` codes; index K stands for no code, and its vector is zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from base_models.tables import TOTAL
from tto.refine.operation import SideSearch
from tto.refine.problem import Candidate, Problem
from tto.refine.state import KeepOn
from tto.side.codes import CONTEXTS, NO_CODE, mask_contexts
from tto.side.compensation import Compensation, CompensationCoder

SAMPLES = 4
"""Random projections that curvature is estimated from."""
FIRST_SHARE = 1.0
SMALLEST_SHARE = 1 / 32
"""Of the changes predicted to pay: tried first, and where the search ends."""
FIRST_STIFFNESS = 1.5
STIFFNESS_RANGE = (0.5, 8.0)
"""Curvature of many changes together over the sum of their own: measured at every trial."""


@dataclass(frozen=True)
class ChooseCodes(SideSearch):
    """Masked compensation (CGOO): see `choose_codes`."""

    steps: int

    def search(self, problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
        return choose_codes(problem, candidate, keep_on)

    def possible(self, problem: Problem) -> bool:
        return CompensationCoder in problem.side_coder


class Landscape(NamedTuple):
    """Distortion around present codes, in bits: its gradient [P, M], and its curvature as one matrix for all
    positions, here between vectors [K + 1, K + 1], times a scale for each position [P].
    """

    gradient: Tensor
    gram: Tensor
    scale: Tensor


class Changes(NamedTuple):
    """The best change at each position: its code [P], and what it does, in bits [P]: `linear` and `quadratic` to
    distortion, `total` to J.
    """

    codes: Tensor
    linear: Tensor
    quadratic: Tensor
    total: Tensor


def choose_codes(problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
    """Changes codes, beginning with those of `problem.side`, until nothing more pays or `keep_on`, called with the
    best after every evaluation, says no. Returns a candidate that is no worse.
    """
    search = CodeSearch(problem, candidate)
    if search.run(removals_only=False, keep_on=keep_on) and bool((search.codes != search.none).any()):
        search.run(removals_only=True, keep_on=keep_on)
    return search.best


class CodeSearch:
    """One candidate's latents, kept, and its codes on their way."""

    def __init__(self, problem: Problem, candidate: Candidate):
        self.problem, self.best = problem, candidate
        self._coder = coder = problem.side_coder[CompensationCoder]
        self.vectors = torch.cat([coder.compensations, torch.zeros_like(coder.compensations[:1])])
        self.none = len(coder.compensations)
        self._code_bits = -torch.log2(torch.from_numpy(coder.frequencies).to(self.vectors) / TOTAL)
        self._size = tuple(candidate.y.shape[-2:])
        present = problem.side.get(Compensation)
        codes = np.full(self._size, NO_CODE) if present is None else present.codes
        self.codes = torch.from_numpy(np.where(codes == NO_CODE, self.none, codes)).to(self.vectors.device).flatten()
        self._stiffness = FIRST_STIFFNESS
        self._curvature: tuple[Tensor, Tensor] | None = None

    def run(self, removals_only: bool, keep_on: KeepOn) -> bool:
        """Rounds until nothing more pays; false where `keep_on` ended them."""
        share = FIRST_SHARE
        while share >= SMALLEST_SHARE:
            changes = self.predict(self.landscape(), removals_only)
            order = changes.total.argsort()[: int((changes.total < 0).sum())]
            if not keep_on(self.best):
                return False
            better = False
            while not better and share >= SMALLEST_SHARE and len(order):
                better = self._try(changes, order[: max(1, int(len(order) * share))])
                share = share if better else share / 2
                if not keep_on(self.best):
                    return False
            if not len(order):
                break
        return True

    def landscape(self) -> Landscape:
        problem = self.problem
        y_hat = self.best.y_hat.detach().requires_grad_(True)
        with problem.for_gradients():
            x_hat = problem.picture(y_hat)
        weight = problem.lambda_ * problem.pixels
        (gradient,) = torch.autograd.grad(weight * problem.distortion(x_hat), y_hat, retain_graph=True)
        if self._curvature is None:
            self._curvature = self._measure_curvature(x_hat, y_hat, weight * problem.distortion.curvature(x_hat))
        return Landscape(gradient[0].flatten(1).T, *self._curvature)

    def _measure_curvature(self, x_hat: Tensor, y_hat: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Gauss-Newton: with J the Jacobian of the picture, the square of Jᵀv along a vector has, for random signs v,
        that vector's curvature as its mean (Hutchinson 1989). Positions differ little, so they share the samples.
        """
        generator = torch.Generator(x_hat.device).manual_seed(0)
        projections = []
        for _ in range(SAMPLES):
            signs = torch.randint(0, 2, x_hat.shape, generator=generator, device=x_hat.device).to(x_hat.dtype) * 2 - 1
            (projected,) = torch.autograd.grad(x_hat, y_hat, signs, retain_graph=True)
            projections.append(projected[0].flatten(1).T)
        samples = torch.stack(projections)  # [samples, P, M]
        along = samples.flatten(0, 1) @ self.vectors.T
        gram = weight * along.T @ along / len(along)
        energy = samples.square().sum(2).mean(0)
        return gram, energy / energy.mean()

    def predict(self, landscape: Landscape, removals_only: bool) -> Changes:
        gradient, gram, scale = landscape
        linear = gradient @ self.vectors.T
        linear = linear - linear.gather(1, self.codes[:, None])
        own = gram.diagonal()
        quadratic = 0.5 * scale[:, None] * (own + own[self.codes][:, None] - 2 * gram[self.codes])
        distortion = linear + self._stiffness * quadratic
        if removals_only:
            distortion[:, : self.none] = torch.inf
            distortion = distortion.scatter(1, self.codes[:, None], 0.0)
        chosen = self.codes
        on, off = torch.ones_like(scale), torch.ones_like(scale)  # a mask bit for each, to begin with
        total = distortion
        for _ in range(3):
            bits = torch.cat([self._code_bits + on[:, None], off[:, None]], 1)
            total = distortion + bits - bits.gather(1, self.codes[:, None])
            chosen = total.argmin(1)
            on, off = self.mask_bits(chosen)
        picked = chosen[:, None]
        return Changes(
            chosen, linear.gather(1, picked)[:, 0], quadratic.gather(1, picked)[:, 0], total.gather(1, picked)[:, 0]
        )

    def mask_bits(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """What "on" and "off" cost at each position [P], with a mask such as that of `codes`."""
        mask = (codes != self.none).view(self._size).cpu().numpy()
        contexts = mask_contexts(mask)
        on = np.bincount(contexts[mask], minlength=CONTEXTS) + 0.5
        off = np.bincount(contexts[~mask], minlength=CONTEXTS) + 0.5
        on_cost, off_cost = (-np.log2(count / (on + off))[contexts.ravel()] for count in (on, off))
        return torch.from_numpy(on_cost).to(self.vectors), torch.from_numpy(off_cost).to(self.vectors)

    @torch.no_grad()
    def _try(self, changes: Changes, some: Tensor) -> bool:
        """Makes the changes at positions `some`, and keeps them where J falls."""
        codes = self.codes.clone()
        codes[some] = changes.codes[some]
        numbers = torch.where(codes == self.none, NO_CODE, codes).view(self._size).cpu().numpy()
        side = self.problem.side.with_(self._coder.make(numbers))
        problem = replace(self.problem, side=side)
        x_hat = problem.picture(self.best.y_hat)
        found = problem.with_picture(self.best, x_hat)
        self._learn_stiffness(found, float(changes.linear[some].sum()), float(changes.quadratic[some].sum()))
        if found.J >= self.best.J:
            return False
        self.best, self.problem, self.codes = found, problem, codes
        return True

    def _learn_stiffness(self, found: Candidate, linear: float, quadratic: float) -> None:
        change = self.problem.lambda_ * self.problem.pixels * (found.distortion - self.best.distortion)
        if quadratic > 0:
            low, high = STIFFNESS_RANGE
            self._stiffness = min(max((change - linear) / quadratic, low), high)
