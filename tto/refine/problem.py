"""What is minimized for one picture: J = R + λ·D of latents, rounded in whichever way.

Several pictures of one size of latents go through the network together: `answer` takes a task for each of them.
Shapes: `M` channels of y, `N` of z, `h w` size of y, `hz wz` of z, `H W` of the picture (not padded).

    z ─ round ─ z_hat ─┐                               ┌─ compensation ─ g_s ─ crop ─ transform ─ clamp ─ D
    y ─────────────── walk: round each part at its μ ─┴─ ŷ after LRP
                        └─ R of the same rounded values
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from base_models import BaseModel
from tto.container import step_size
from tto.padding import crop
from tto.refine.distortion import Distortion
from tto.refine.rate import FactorizedBits, Rate, gaussian_bits
from tto.side.coder import SideCoder
from tto.side.side import NO_SIDE, Side

Rounding = Callable[[Tensor], Tensor]


class Outcome(NamedTuple):
    """One evaluation. `bits` and `distortion` are scalars; `y`, `z` are the rounded latents before LRP.

    `y_hat` is after LRP, `x_hat` the clamped picture [1, 3, H, W]; `sigma` is not divided by the step.
    """

    bits: Tensor
    distortion: Tensor
    y: Tensor
    z: Tensor
    y_hat: Tensor
    x_hat: Tensor
    mu: Tensor
    sigma: Tensor


class Point(NamedTuple):
    """Latents y [1, M, h, w] and z [1, N, hz, wz] of a problem.

    `rounding` is called with z, then with each part, in units of the step and centred; `rate` prices parts.
    """

    problem: Problem
    y: Tensor
    z: Tensor
    qp: int
    rounding: Rounding
    rate: Rate = gaussian_bits


class Task(NamedTuple):
    """An evaluation, in float32 unless it is only for gradients.

    `loss`: whose gradients for `leaves` are wanted, each of one picture; with `exact` the outcome is, too. `projection`
    [1, 3, H, W]: vector whose product with the picture's Jacobian for `leaves` is wanted.
    """

    point: Point
    loss: Callable[[Outcome], Tensor] | None = None
    leaves: tuple[Tensor, ...] = ()
    exact: bool = True
    projection: Tensor | None = None


class Answer(NamedTuple):
    """Without a graph. `gradients` and `projected` have the shapes of the task's leaves."""

    outcome: Outcome
    gradients: tuple[Tensor, ...] = ()
    projected: tuple[Tensor, ...] = ()


def answer(tasks: Sequence[Task]) -> list[Answer]:
    """Answers to tasks that differ in nothing the network sees but the values of latents."""
    points, reduced = [task.point for task in tasks], nullcontext()
    if tasks[0].loss is None:
        with torch.no_grad():
            return [Answer(outcome) for outcome in evaluate(points)]
    if not tasks[0].exact:
        reduced = points[0].problem.for_gradients()
    with torch.enable_grad(), reduced:
        outcomes = evaluate(points)
    total = sum(task.loss(outcome) for task, outcome in zip(tasks, outcomes, strict=True))
    projecting = [task for task in tasks if task.projection is not None]
    gradients = iter(torch.autograd.grad(total, _leaves(tasks), retain_graph=bool(projecting)))
    pictures = [o.x_hat for task, o in zip(tasks, outcomes, strict=True) if task.projection is not None]
    projections = [task.projection for task in projecting]
    projected = iter(torch.autograd.grad(pictures, _leaves(projecting), projections) if projecting else ())
    return [
        Answer(
            Outcome(*(value.detach() for value in outcome)),
            tuple(next(gradients) for _ in task.leaves),
            tuple(next(projected) for _ in task.leaves if task.projection is not None),
        )
        for task, outcome in zip(tasks, outcomes, strict=True)
    ]


def _leaves(tasks: Sequence[Task]) -> list[Tensor]:
    return [leaf for task in tasks for leaf in task.leaves]


def evaluate(points: Sequence[Point]) -> list[Outcome]:
    """One walk and one synthesis of points that share model, quality and size of latents."""
    first = points[0].problem
    steps = [step_size(point.qp) for point in points]
    parts = [first.model.split_y(point.y) for point in points]
    rounded: list[list[Tensor]] = [[] for _ in points]

    def code_part(i: int, mu: Tensor, sigma: Tensor) -> Tensor:
        for n, (point, mu_n, sigma_n) in enumerate(zip(points, mu.split(1), sigma.split(1), strict=True)):
            u = point.rounding((parts[n][i] - mu_n) / steps[n])
            bits[n].append(point.rate(u, sigma_n / steps[n]).sum())
            rounded[n].append(u * steps[n] + mu_n)
        return _batch([of_one[-1] for of_one in rounded])

    z_rounded = [point.rounding(point.z - point.problem.medians) for point in points]
    bits = [[point.problem.z_bits(z).sum()] for point, z in zip(points, z_rounded, strict=True)]
    z_hats = [z + point.problem.medians for point, z in zip(points, z_rounded, strict=True)]
    walk = first.model.walk(_batch(z_hats), first.quality, code_part)
    y_hats, mus, sigmas = (latent.split(1) for latent in (walk.y_hat, walk.mu, walk.sigma))
    compensated = [point.problem.side.on_latent(y_hat) for point, y_hat in zip(points, y_hats, strict=True)]
    x_hats = first.model.synthesis(_batch(compensated), first.quality, first.recompute).split(1)
    outcomes = []
    for n, problem in enumerate(point.problem for point in points):
        x_hat = problem.side.on_picture(problem.cut(x_hats[n])).clamp(0, 1)
        with torch.autocast(x_hat.device.type, enabled=False):  # differences of nearly equal pixels
            distortion = problem.distortion(x_hat)
        total = sum(bits[n]) + problem.side.bits
        y = first.model.join_y(rounded[n])
        outcomes.append(Outcome(total, distortion, y, z_hats[n], y_hats[n], x_hat, mus[n], sigmas[n]))
    return outcomes


def _batch(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def answer_alone(task: Task) -> Answer:
    return answer([task])[0]


@dataclass(frozen=True)
class Problem:
    """One picture to refine with one model at one quality; `lambda_` weighs distortion in bits per pixel.

    `side` is in force in every evaluation, its bits included; `side_coder` makes more of it.
    `bfloat16`: whether evaluations that only give gradients run the network in it. `recompute`: whether the backward
    pass computes g_s anew, piece by piece, instead of remembering all of it. `answer`: who sees to its tasks.
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
    recompute: bool = False
    answer: Callable[[Task], Answer] = answer_alone

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @cached_property
    def z_bits(self) -> FactorizedBits:
        return FactorizedBits(self.model.z_tables(), self.medians.device)

    @cached_property
    def medians(self) -> Tensor:
        return self.model.z_medians()

    def for_gradients(self) -> torch.autocast:
        """Around an evaluation of which only gradients are used; candidates are always judged in float32."""
        return torch.autocast(self.medians.device.type, torch.bfloat16, enabled=self.bfloat16)

    def picture(self, y_hat: Tensor) -> Tensor:
        """ŷ → x̂ [1, 3, H, W] in [0, 1], gray where the picture is."""
        return self.side.on_picture(self.reconstruction(y_hat)).clamp(0, 1)

    def reconstruction(self, y_hat: Tensor) -> Tensor:
        """ŷ → x̂ [1, 3, H, W] before the transform, not clamped."""
        return self.cut(self.model.synthesis(self.side.on_latent(y_hat), self.quality, self.recompute))

    def cut(self, x_hat: Tensor) -> Tensor:
        """What g_s gave → float32 without padding, gray where the picture is."""
        x_hat = crop(x_hat, self.height, self.width).float()
        return x_hat.mean(1, keepdim=True).expand_as(x_hat) if self.grayscale else x_hat

    def z_symbols(self, z_hat: Tensor) -> Tensor:
        return (z_hat - self.medians).round()

    def cost(self, outcome: Outcome, rate_weight: float = 1.0) -> Tensor:
        """J in bits per pixel, its rate weighted."""
        return rate_weight * outcome.bits / self.pixels + self.lambda_ * outcome.distortion

    def judge(self, y: Tensor, z: Tensor, qp: int, rounding: Rounding = torch.round) -> Outcome:
        """What latents give that are rounded for good."""
        return self.answer(Task(Point(self, y, z, qp, rounding))).outcome

    def candidate(self, y: Tensor, z: Tensor, qp: int) -> Candidate:
        """Latents rounded for good, and their estimated figures."""
        return self.candidate_of(self.judge(y, z, qp), qp)

    @torch.no_grad()
    def candidate_of(self, outcome: Outcome, qp: int) -> Candidate:
        """A candidate from an evaluation whose rounding was hard, its distortion that of 8-bit pixels."""
        levels = outcome.x_hat.mul(255).round()
        bpp, distortion = float(outcome.bits) / self.pixels, float(self.distortion(levels / 255))
        mse = float(((levels - torch.as_tensor(self.distortion.original).permute(2, 0, 1).to(levels)) ** 2).mean())
        psnr = 10 * math.log10(255**2 / max(mse, 1e-10))
        J = bpp + self.lambda_ * distortion
        return Candidate(outcome.y.detach(), outcome.z.detach(), qp, bpp, distortion, psnr, J, self.side)


@dataclass(frozen=True)
class Candidate:
    """Latents that round to the wanted symbols on any machine, with estimated figures.

    y is ŷ before LRP: each value lies in the middle of its cell, so that the coder's own μ, which differs from ours by
    float32's precision, gives the same symbols.
    """

    y: Tensor
    z: Tensor
    qp: int
    bpp: float
    distortion: float
    psnr: float
    J: float
    side: Side
