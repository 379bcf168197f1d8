"""The one loop: gradient descent on the latents of one picture, weights frozen.

    relax and walk → J → gradient through the whole chain of slices → step → now and then: round for good, keep the best
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tto.refine.presets import Phase
from tto.refine.problem import Candidate, Problem

SEED = 0
OPTIMIZERS = {
    "adam": lambda groups, phase: torch.optim.Adam(groups, betas=phase.betas, eps=phase.eps),
    "adagrad": lambda groups, phase: torch.optim.Adagrad(groups),
    "sgd": lambda groups, phase: torch.optim.SGD(groups),
}


class Run:
    def __init__(self, problem, y, z, qp, on_step=lambda run: None):
        self.problem, self.qp = problem, qp
        self.y, self.z = y.clone(), z.clone()
        self.best = problem.candidate(y, z, qp)
        self.generator = torch.Generator(y.device).manual_seed(SEED)
        self.steps = 0
        self.on_step = on_step

    def keep(self, candidate):
        if candidate.J < self.best.J:
            self.best = candidate
            return True
        return False

    def phase(self, phase: Phase):
        problem = self.problem
        if phase.restart:
            self.y, self.z, self.qp = self.best.y.clone(), self.best.z.clone(), self.best.qp
        y, z = self.y.requires_grad_(True), self.z.requires_grad_(True)
        opt = OPTIMIZERS[phase.optimizer]([{"params": [y]}, {"params": [z]}], phase)
        delta = 2.0 ** ((self.qp - 128) / 32)
        for k in range(phase.steps):
            t = k / max(phase.steps - 1, 1)
            lr = phase.step_size(t)
            opt.param_groups[0]["lr"], opt.param_groups[1]["lr"] = lr * delta, lr * phase.z_step
            outcome = problem.evaluate(y, z, self.qp, partial(phase.relaxation, temperature=phase.temperature(t), generator=self.generator))
            loss = phase.rate_weight(t) * outcome.bits + problem.lambda_ * problem.pixels * outcome.distortion
            if phase.relaxation.hard:
                self.keep(problem.candidate_of(outcome, self.qp))
            gy, gz = torch.autograd.grad(loss, (y, z))
            y.grad, z.grad = gy, gz
            opt.step()
            self.steps += 1
            if phase.score_every and not phase.relaxation.hard and (k + 1) % phase.score_every == 0:
                self.keep(problem.candidate(y, z, self.qp))
            self.on_step(self)
        self.keep(problem.candidate(y, z, self.qp))
        self.y, self.z = y.detach(), z.detach()
