"""What a refinement is made of. A new operation is one file with a subclass, and a place in `tto.refine.presets`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, cast

from tto.errors import NotEnoughMemory
from tto.refine.problem import Candidate, Problem
from tto.refine.state import KeepOn, State


class Operation(ABC):
    """A frozen dataclass that betters what `State` holds in `steps` steps, or fewer."""

    exact: ClassVar[bool] = True
    """Whether `resized` meets any number of steps."""
    steps: int

    @abstractmethod
    def run(self, state: State) -> None: ...

    def resized(self, steps: int) -> Operation | None:
        """The operation with so many steps, or None where it cannot do anything in them."""
        return replace(cast(Any, self), steps=steps) if steps > 0 else None

    def possible(self, problem: Problem) -> bool:
        """Whether it can be done for this problem at all."""
        return True


class SideSearch(Operation):
    """Looks for side information that suits the best candidate; what follows goes on with it. Steps are evaluations."""

    def run(self, state: State) -> None:
        keep_on = state.keeping(self.steps)
        with suppress(NotEnoughMemory):  # then what is there stands
            state.with_memory(lambda: self.search(state.problem, state.best, keep_on))
        state.go_on_with_side()

    @abstractmethod
    def search(self, problem: Problem, candidate: Candidate, keep_on: KeepOn) -> Candidate:
        """A candidate that is no worse; `keep_on` has been called with it where anything was tried."""


def run_all(operations: Iterable[Operation], state: State) -> None:
    """One after the other, until the refinement is over."""
    for operation in operations:
        if state.is_over():
            return
        operation.run(state)
