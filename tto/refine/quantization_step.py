"""Adaptive quantization step (CGOO; choice and coding ours)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tto.refine.operation import Operation, run_all
from tto.refine.state import State


@dataclass(frozen=True)
class ChooseStep(Operation):
    """Δ of y is moved by `offset` entries of the file's geometric table (32 to an octave), up first, and the symbols
    that the best latents have there are bettered by `operations`. While that lowers J it goes on in the same direction,
    else in the other, `tries` times in all.
    """

    exact: ClassVar[bool] = False

    offset: int
    tries: int
    operations: tuple[Operation, ...]

    @property
    def steps(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] (both are only read)
        return self.tries * sum(operation.steps for operation in self.operations)

    def run(self, state: State) -> None:
        direction = 1
        for _ in range(self.tries):
            if state.is_over():
                break
            before = state.best
            state.go_on_from(before, max(0, min(255, before.qp + direction * self.offset)))
            run_all(self.operations, state)
            if state.best is before:
                direction = -direction
        state.go_on_from(state.best, state.best.qp)

    def resized(self, steps: int) -> Operation | None:
        each = steps / self.tries
        inner = sum(operation.steps for operation in self.operations)
        resized = (operation.resized(int(operation.steps * each / inner)) for operation in self.operations)
        operations = tuple(operation for operation in resized if operation is not None)
        return replace(self, operations=operations) if operations else None
