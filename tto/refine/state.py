"""Where the refinement of one picture stands: what every operation begins with and leaves behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from tto.refine.budget import Budget
from tto.refine.memory import released, with_less_memory
from tto.refine.problem import Candidate, Problem

SEED = 0
LAYOUT = torch.channels_last
"""Of latents: convolutions take their inputs' layout, and small ones are faster so."""
Result = TypeVar("Result")
KeepOn = Callable[[Candidate], int]
"""Called by a search with its best candidate after every evaluation; says how many more there may be."""


@dataclass(frozen=True)
class Progress:
    """Figures are estimates for the best candidate so far.

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
class Callbacks:
    """`on_progress` is called after every step; `should_stop` before every one, and may end the refinement."""

    on_progress: Callable[[Progress], None] = lambda progress: None
    should_stop: Callable[[], bool] = lambda: False


class State:
    """Where a picture stands: the best candidate so far, the one that flips go on from (`latest`), and the latents `y`,
    `z` that a descent goes on from; `go_on_from` makes both the same.
    """

    def __init__(self, problem: Problem, y: Tensor, z: Tensor, qp: int, budget: Budget, callbacks: Callbacks):
        self.problem, self.budget, self.callbacks = problem, budget, callbacks
        self.y, self.z = (latent.clone(memory_format=LAYOUT) for latent in (y, z))
        self.qp = qp
        self.best = self.latest = problem.candidate(y, z, self.qp)
        self.base_J = self.best.J
        self.steps = 0
        self.generator = torch.Generator(y.device).manual_seed(SEED)
        self._start = time.monotonic()

    def is_over(self) -> bool:
        out_of_time = self.budget.seconds is not None and time.monotonic() - self._start >= self.budget.seconds
        return out_of_time or self.callbacks.should_stop()

    def keep(self, candidate: Candidate) -> None:
        if candidate.J < self.best.J:
            self.best = candidate

    def go_on_from(self, candidate: Candidate, qp: int) -> None:
        """Its latents, rounded at step `qp`, are the latest."""
        self.qp = qp
        self.y, self.z = (latent.clone(memory_format=LAYOUT) for latent in (candidate.y, candidate.z))
        self.latest = candidate if qp == candidate.qp else self.problem.candidate(self.y, self.z, qp)

    def go_on_with_side(self) -> None:
        """The best candidate so far is the latest, and its side information in force from here on."""
        self.problem = replace(self.problem, side=self.best.side)
        self.go_on_from(self.best, self.best.qp)

    def parts(self, steps: int) -> Iterator[float]:
        """Before each step of an operation that takes so many, the part of it that is done."""
        share = self.budget.share(steps)
        while (done := share.done()) is not None and not self.is_over():
            yield done
            self._advance()

    def keeping(self, steps: int) -> KeepOn:
        """For a search of so many evaluations: keeps the best, counts a step, and says how many are left."""
        share = self.budget.share(steps)
        share.done()

        def keep_on(best: Candidate) -> int:
            self.keep(best)
            self._advance()
            goes_on = share.done() is not None and not self.is_over()
            return goes_on and share.left + 1

        return keep_on

    def with_memory(self, work: Callable[[], Result]) -> Result:
        """What `work` gives; where memory runs out, again in less of it."""
        while True:
            try:
                return work()
            except (MemoryError, RuntimeError) as error:
                failure = released(error)
            self.problem = with_less_memory(self.problem, failure)

    def _advance(self) -> None:
        self.steps += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / self.steps * max(self.budget.steps - self.steps, 0)
        if self.budget.seconds is not None:
            left = max(self.budget.seconds - elapsed, 0.0)
        figures = (self.best.bpp, self.best.psnr, self.best.J, self.base_J)
        self.callbacks.on_progress(Progress(self.steps, self.budget.steps, *figures, left))
