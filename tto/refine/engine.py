"""The one loop: descent on the latents of one picture, weights frozen.

relax and walk → J → gradient through the whole chain of slices → step → now and then: round for good, keep the best
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from tto.container import step_size
from tto.refine.compensation import choose_codes
from tto.refine.filtering import fit_filter
from tto.refine.flips import anneal_symbols, flip_symbols
from tto.refine.memory import ran_out, with_less_memory
from tto.refine.plan import Plan
from tto.refine.presets import (
    AnnealSymbols,
    ChooseStep,
    Compensate,
    Filter,
    FlipSymbols,
    Operation,
    Phase,
    SideOperation,
    Transform,
)
from tto.refine.problem import Candidate, Outcome, Point, Problem, Task
from tto.refine.transform import fit_transform
from tto.side.filter import Filter as Fitted

SEED = 0
Result = TypeVar("Result")
SEARCHES = {Filter: fit_filter, Transform: fit_transform, Compensate: choose_codes}
OPTIMIZERS = {
    "adam": lambda groups, phase: torch.optim.Adam(groups, betas=phase.betas),
    "adagrad": lambda groups, phase: torch.optim.Adagrad(groups),
}


@dataclass(frozen=True)
class Progress:
    """Where a refinement stands; figures are estimates for the best candidate so far.

    `bpp` leaves out what a container adds, `psnr` is in dB, `base_J` is that of the unrefined latents.
    """

    step: int
    steps: int
    bpp: float
    psnr: float
    J: float
    base_J: float
    seconds_left: float


@dataclass(frozen=True)
class Watch:
    """Who looks on: `on_progress` hears of every step, and `should_stop` is asked before every one."""

    on_progress: Callable[[Progress], None] = lambda progress: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Refinement:
    """What refining gave: the best candidate at the end of every stage, with its filter, and how many steps it took."""

    candidates: tuple[Candidate, ...]
    steps: int


def refine(problem: Problem, y: Tensor, z: Tensor, qp: int, plan: Plan, watch: Watch) -> Refinement:
    """Refines y [1, M, h, w] and z [1, N, hz, wz] of one picture, beginning at step `qp`."""
    descent = Descent(problem, y, z, qp, plan, watch)
    candidates = []
    for stage in plan.stages:
        for operation in stage:
            descent.do(operation)
        candidates.append(descent.finished())
        if descent.is_over():
            break
    return Refinement(tuple(candidates), descent.steps)


class Descent:
    """The latents on their way, what they round to (`latest`), and the best rounded candidate so far."""

    def __init__(self, problem: Problem, y: Tensor, z: Tensor, qp: int, plan: Plan, watch: Watch):
        self.problem, self.plan, self.watch = problem, plan, watch
        # Channels last: convolutions take their inputs' layout, and small ones are faster so.
        self.y, self.z = (latent.clone(memory_format=torch.channels_last) for latent in (y, z))
        self.qp = qp
        self.best = self.latest = problem.candidate(y, z, self.qp)
        self.base_J = self.best.J
        self.steps = 0
        self._generator = torch.Generator(y.device).manual_seed(SEED)
        self._start = time.monotonic()

    def do(self, operation: Operation) -> None:
        if self.is_over():
            return
        if isinstance(operation, Phase):
            self._descend(operation)
        elif isinstance(operation, ChooseStep):
            self._choose_step(operation)
        elif isinstance(operation, AnnealSymbols):
            self._anneal(operation)
        elif isinstance(operation, FlipSymbols):
            self._flip(operation)
        elif isinstance(operation, SideOperation):
            self._add_side(operation)

    def is_over(self) -> bool:
        out_of_time = self.plan.seconds is not None and time.monotonic() - self._start >= self.plan.seconds
        return out_of_time or self.watch.should_stop()

    def finished(self) -> Candidate:
        """The best so far, with a filter that suits it unless that was looked for. What follows goes on without.

        Where memory does not suffice, without a filter.
        """
        if self.problem.side.get(Fitted) is not None:
            return self.best
        try:
            return fit_filter(self.problem, self.best, lambda best: False)
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            return self.best

    def keep(self, candidate: Candidate) -> None:
        if candidate.J < self.best.J:
            self.best = candidate

    def _descend(self, phase: Phase) -> None:
        y, z = self.y, self.z
        moved = [latent.requires_grad_(True) for name, latent in (("y", y), ("z", z)) if name in phase.latents]
        optimizer = OPTIMIZERS[phase.optimizer]([{"params": [latent]} for latent in moved], phase)
        stale = 0
        for step, done in enumerate(self._parts(phase), 1):
            if stale == phase.patience:
                break
            for latent, group in zip(moved, optimizer.param_groups, strict=True):
                group["lr"] = phase.step_size(done) * (step_size(self.qp) if latent is y else 1.0)
            outcome = self._with_memory(partial(self.differentiate, phase, done, y, z))
            optimizer.step()
            if phase.relaxation.hard:
                found = self.problem.candidate_of(outcome, self.qp)
            elif phase.look_every is not None and step % phase.look_every == 0:
                found = self.problem.candidate(y, z, self.qp)
            else:
                continue
            stale = 0 if found.J < self.best.J else stale + 1
            self.keep(found)
        self.y, self.z = y.detach(), z.detach()
        self.latest = self.problem.candidate(self.y, self.z, self.qp)
        self.keep(self.latest)

    def differentiate(self, phase: Phase, done: float, y: Tensor, z: Tensor) -> Outcome:
        """Gives gradients to y and z that want them. Where the relaxation is hard, the outcome is a candidate's."""
        problem = self.problem
        moved = tuple(latent for latent in (y, z) if latent.requires_grad)
        rounding = partial(phase.relaxation, temperature=phase.temperature(done), generator=self._generator)
        answer = problem.answer(
            Task(
                Point(problem, y, z, self.qp, rounding, phase.rate),
                # In bits of the whole picture: Adam's epsilon then means the same at every size.
                loss=lambda outcome: problem.cost(outcome, phase.rate_weight(done)) * problem.pixels,
                leaves=moved,
                exact=phase.relaxation.hard,
            )
        )
        for latent, gradient in zip(moved, answer.gradients, strict=True):
            latent.grad = gradient
        return answer.outcome

    def _choose_step(self, operation: ChooseStep) -> None:
        """Moves Δ up or down by the operation's offset while that pays, each try from the best so far."""
        direction = 1
        for _ in range(operation.tries):
            if self.is_over():
                break
            before = self.best
            self._go_on_from(before, max(0, min(255, before.qp + direction * operation.offset)))
            for part in operation.operations:
                self.do(part)
            if self.best is before:
                direction = -direction
        self._go_on_from(self.best, self.best.qp)

    def _go_on_from(self, candidate: Candidate, qp: int) -> None:
        """Its latents, rounded at step `qp`, are the latest."""
        self.qp = qp
        self.y, self.z = candidate.y.clone(), candidate.z.clone()
        self.latest = candidate if qp == candidate.qp else self.problem.candidate(self.y, self.z, qp)

    def _anneal(self, operation: AnnealSymbols) -> None:
        parts = self._parts(operation)
        self.latest = self._with_memory(
            lambda: anneal_symbols(self.problem, self.latest, operation.temperature, parts, self._generator)
        )
        self.keep(self.latest)

    def _flip(self, operation: FlipSymbols) -> None:
        keep_on = self._keeping(operation)
        self._with_memory(lambda: flip_symbols(self.problem, self.latest, keep_on))
        self.latest = self.best

    def _add_side(self, operation: SideOperation) -> None:
        """Side information for the best so far; what follows goes on from there."""
        search = SEARCHES[type(operation)]
        keep_on = self._keeping(operation)
        self._with_memory(lambda: search(self.problem, self.best, keep_on))
        self.problem = replace(self.problem, side=self.best.side)
        self._go_on_from(self.best, self.best.qp)

    def _parts(self, operation: Phase | AnnealSymbols) -> Iterator[float]:
        """Before each step of an operation, the part of it that is done."""
        pace = self.plan.pace(operation.steps)
        while (done := pace.done()) is not None and not self.is_over():
            yield done
            self._advance()

    def _keeping(self, operation: Operation) -> Callable[[Candidate], bool]:
        """For a search over candidates: keeps the best, counts a step, and says whether there is another."""
        pace = self.plan.pace(operation.steps)
        pace.done()

        def keep_on(best: Candidate) -> bool:
            self.keep(best)
            self._advance()
            return pace.done() is not None and not self.is_over()

        return keep_on

    def _with_memory(self, work: Callable[[], Result]) -> Result:
        """What `work` gives; where memory runs out, again in less of it."""
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                self.problem = with_less_memory(self.problem, error)

    def _advance(self) -> None:
        self.steps += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / self.steps * max(self.plan.steps - self.steps, 0)
        if self.plan.seconds is not None:
            left = max(self.plan.seconds - elapsed, 0.0)
        best = self.best
        self.watch.on_progress(Progress(self.steps, self.plan.steps, best.bpp, best.psnr, best.J, self.base_J, left))
