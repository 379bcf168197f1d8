"""The adaptation of one picture: low-rank changes of the synthesis' last weights, by descent on J **[ours]**.

Factors begin with the strongest directions of the gradient, whose other half is zero. In the second half of the descent
they are rounded, with the gradient of the identity. Then each change, of a tensor or of a few, has to pay for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tto.reconstruction import reconstruct
from tto.refine.filtering import fit_filter
from tto.refine.memory import attempted
from tto.refine.operation import Operation
from tto.refine.problem import Candidate, Problem
from tto.refine.state import KeepOn, State
from tto.side.adaptation import Adaptation, AdaptationCoder, Change, Changes, changed
from tto.side.bits import LARGEST_LEVEL
from tto.side.filter import Filter
from tto.side.side import Side
from tto.side.transform import Transform

RATE = 0.02
START = 0.3
"""Root mean square of the factor that does not begin at zero."""
LARGEST_PICTURE = 1 << 22
"""In pixels: a step of the descent holds all activations of the synthesis."""
GROUPS = 20
"""Of tensors at most; all changes of one have to pay for themselves together."""
JUDGING = GROUPS + 4
"""Evaluations that a search needs after its descent."""


@dataclass(frozen=True)
class FitAdaptation(Operation):
    """`steps` counts those of the descent, forward and back through the last layers of g_s, and `JUDGING` more."""

    exact = False
    steps: int
    rank: int = 1
    exponent: int = 4

    def run(self, state: State) -> None:
        state.keep(attempted(lambda: self._search(state), state.best))
        state.go_on_with_side()

    def _search(self, state: State) -> Candidate:
        fit = _Fit(state.problem, state.best, self)
        for done in state.parts(self.steps - JUDGING):
            fit.descend(done)
        return state.best if state.is_over() else fit.judged(state.keeping(JUDGING))

    def resized(self, steps: int) -> FitAdaptation | None:
        return replace(self, steps=steps) if steps > JUDGING else None

    def possible(self, problem: Problem) -> bool:
        return AdaptationCoder in problem.side_coder and problem.pixels <= LARGEST_PICTURE


class _Fit:
    def __init__(self, problem: Problem, candidate: Candidate, settings: FitAdaptation):
        self.candidate, self.settings = candidate, settings
        self.side = problem.side.without(Adaptation).without(Filter).without(Transform)
        self.problem = problem
        if problem.memory is None:
            y_hat = self.side.on_latent(candidate.y_hat)
            self.problem = replace(problem, model=problem.model.held_at(y_hat, problem.quality))
        self.weights = {name: tensor.detach() for name, tensor in problem.model.last_weights().items()}
        self.factors = self._start()
        leaves = [factor for factors in self.factors for factor in factors]
        self.adam = torch.optim.Adam(leaves, lr=RATE, betas=(0.9, 0.95))

    def _start(self) -> list[tuple[Tensor, ...]]:
        leaves = [tensor.clone().requires_grad_() for tensor in self.weights.values()]
        gradients = torch.autograd.grad(self._loss(leaves), leaves)
        factors = []
        for tensor, gradient in zip(leaves, gradients, strict=True):
            if tensor.dim() == 1:
                factors.append((torch.zeros_like(tensor).requires_grad_(),))
                continue
            rank = min(self.settings.rank, len(tensor), gradient[0].numel())
            right = torch.linalg.svd(gradient.nan_to_num().flatten(1), full_matrices=False).Vh[:rank]
            right = (START * right.shape[1] ** 0.5 * right).contiguous()
            left = torch.zeros(len(tensor), rank).to(right)
            factors.append((left.requires_grad_(), right.requires_grad_()))
        return factors

    def _loss(self, weights: Sequence[Tensor]) -> Tensor:
        """λ·D with these weights."""
        problem = self.problem
        with torch.enable_grad(), problem.for_gradients():
            network = problem.model.with_weights(dict(zip(self.weights, weights, strict=True)))
            x_hat = reconstruct(
                network, problem.quality, self.candidate.y_hat, problem.frame, self.side, problem.memory
            ).clamp(0, 1)
            with torch.autocast(x_hat.device.type, enabled=False):
                return problem.lambda_ * problem.distortion(x_hat)

    def descend(self, done: float) -> None:
        """One step of Adam; `done` goes from 0 to 1."""
        step = 2.0**-self.settings.exponent
        self.adam.param_groups[0]["lr"] = RATE * (1 - 0.9 * done)
        with torch.enable_grad():
            factors = self.factors
            if done > 0.5:
                factors = [tuple(f + ((f / step).round() * step - f).detach() for f in own) for own in factors]
            weights = [changed(tensor, own) for tensor, own in zip(self.weights.values(), factors, strict=True)]
            bits = sum(torch.log2(1 + f.abs() / step).sum() for own in self.factors for f in own)
            loss = self._loss(weights) + 1.5 * bits / self.problem.pixels
            self.adam.zero_grad()
            loss.backward()
        self.adam.step()

    def judged(self, keep_on: KeepOn) -> Candidate:
        """The candidate with its changes rounded and chosen, with a filter for them; or as it was."""
        changes = [self._levels(own) for own in self.factors]
        found = self._with(changes)
        for group in np.array_split(np.arange(len(changes)), min(GROUPS, len(changes))):
            if not any(changes[number] for number in group):
                continue
            if not keep_on(self._better(found)):
                break
            fewer = [() if number in group else change for number, change in enumerate(changes)]
            without = self._with(fewer)
            if without.J <= found.J:
                found, changes = without, fewer
        if not any(changes):
            return self._better(found)
        problem = replace(self.problem, side=found.side)
        return self._better(fit_filter(problem, found, lambda best: keep_on(self._better(best))))

    def _better(self, found: Candidate) -> Candidate:
        return min(self.candidate, found, key=lambda one: one.J)

    def _levels(self, factors: Sequence[Tensor]) -> Change:
        levels = [
            np.clip(np.round(f.detach().cpu().numpy() * 2**self.settings.exponent), -LARGEST_LEVEL, LARGEST_LEVEL)
            for f in factors
        ]
        return tuple(one.astype(np.int64) for one in levels) if all(one.any() for one in levels) else ()

    @torch.no_grad()
    def _with(self, changes: Sequence[Change]) -> Candidate:
        """The candidate with these changes and without filter and transform."""
        part = self.problem.side_coder[AdaptationCoder].make(Changes(tuple(changes), self.settings.exponent))
        side: Side = self.side.with_(part)
        problem, y_hat = self.problem, self.candidate.y_hat
        x_hat = reconstruct(problem.model, problem.quality, y_hat, problem.frame, side, problem.memory)
        return replace(problem, side=side).with_picture(self.candidate, x_hat.clamp(0, 1))
