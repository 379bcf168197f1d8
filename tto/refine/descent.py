"""Gradient descent on the latents, weights frozen.

relax and walk → J → gradient through the whole chain of parts → step; in the end: round for good
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tto.container import step_size
from tto.refine.operation import Operation
from tto.refine.problem import Evaluation, Outcome, Problem
from tto.refine.rate import Rate, expected_bits
from tto.refine.relaxations import Relaxation
from tto.refine.schedules import Constant, Schedule
from tto.refine.state import State


@dataclass(frozen=True)
class Phase(Operation):
    """One stretch of gradient descent. Schedules are functions of the part of it that is done.

    step_size: of Adam, for y in quantization steps; temperature: of the relaxation; rate: how relaxed parts of y are
    priced (`tto.refine.rate`; what is hard has integers, and `gaussian_bits` their two-sided slopes); rate_weight: of R
    in what is descended on. Where it begins below 1, early steps throw less information away: the relaxed rate of
    H. Kuang, W. Yang, Z. Guo, J. Liu (CGOO); a ramp that returns to 1 within the phase is **[ours]**. Where the
    relaxation is hard, latents are judged after every step, else at the end; by J itself.
    """

    steps: int
    relaxation: Relaxation
    step_size: Schedule
    temperature: Schedule = Constant(1.0)
    rate: Rate = expected_bits
    betas: tuple[float, float] = (0.8, 0.95)
    rate_weight: Schedule = Constant(1.0)

    def run(self, state: State) -> None:
        y, z = state.y.requires_grad_(True), state.z.requires_grad_(True)
        optimizer = self.optimizer((y, z))
        for done in state.parts(self.steps):
            for group, unit in zip(optimizer.param_groups, (step_size(state.qp), 1.0), strict=True):
                group["lr"] = self.step_size(done) * unit
            outcome = state.with_memory(partial(self.differentiate, state, done, y, z))
            if not all(bool(leaf.grad.isfinite().all()) for leaf in (y, z) if leaf.grad is not None):
                break  # a metric of the user's own can do that
            optimizer.step()
            if self.relaxation.hard:
                state.keep(state.problem.candidate_of(outcome, state.qp))
            del outcome  # before the next one is made
        state.y, state.z = y.detach(), z.detach()
        state.latest = state.problem.candidate(state.y, state.z, state.qp)
        state.keep(state.latest)

    def optimizer(self, latents: Sequence[Tensor]) -> torch.optim.Optimizer:
        """With a group for each of the latents."""
        return torch.optim.Adam([{"params": [latent]} for latent in latents], betas=self.betas)

    def loss(self, problem: Problem, outcome: Outcome, done: float) -> Tensor:
        """In bits of the whole picture: Adam's epsilon then means the same at every size."""
        return problem.cost(outcome, self.rate_weight(done)) * problem.pixels

    def differentiate(self, state: State, done: float, y: Tensor, z: Tensor) -> Outcome:
        """Gives gradients to y and z. Where the relaxation is hard, the outcome is a candidate's."""
        problem = state.problem
        rounding = partial(self.relaxation, temperature=self.temperature(done), generator=state.generator)
        evaluated = problem.evaluate(
            Evaluation(
                problem,
                y,
                z,
                state.qp,
                rounding,
                self.rate,
                loss=lambda outcome: self.loss(problem, outcome, done),
                leaves=(y, z),
                exact=self.relaxation.hard,
            )
        )
        y.grad, z.grad = evaluated.gradients
        return evaluated.outcome
