"""Several pictures refined at the same time, each in a thread of its own: their evaluations become batches.

Whoever comes last does what others have asked for. A device that one small picture cannot fill is used better so; what
a picture gets is, but for how sums round, what it gets alone.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from tto.memory import ran_out
from tto.refine.memory import released
from tto.refine.problem import Evaluated, Evaluation, evaluate


@dataclass(eq=False)
class Pending:
    """An evaluation, and in the end either what it gave or what went wrong."""

    evaluation: Evaluation
    evaluated: Evaluated | None = None
    error: Exception | None = None

    @property
    def is_open(self) -> bool:
        return self.evaluated is None and self.error is None


class Batch:
    """Threads that are inside (`with batch:`) wait in `evaluate` for one another."""

    def __init__(self):
        self._members = 0
        self._pending: list[Pending] = []
        self._changed = threading.Condition()
        self._largest: dict[torch.Size, int] = {}  # group that memory is enough for, by size of y

    def __enter__(self) -> Batch:
        with self._changed:
            self._members += 1
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._members -= 1
            self._changed.notify_all()

    def evaluate(self, evaluation: Evaluation) -> Evaluated:
        """Raises what this very evaluation raises."""
        own = Pending(evaluation)
        with self._changed:
            self._pending.append(own)
            while own.is_open:
                if len(self._pending) >= self._members:
                    self._evaluate_oldest()
                else:
                    self._changed.wait()
        if own.error is not None:
            raise own.error
        assert own.evaluated is not None  # one of both is there once it is closed
        return own.evaluated

    def _evaluate_oldest(self) -> None:
        """All of the kind that has waited longest: others may soon be joined by those that are a step behind."""
        kinds = [_kind(one.evaluation) for one in self._pending]
        group = [one for one, kind in zip(self._pending, kinds, strict=True) if kind == kinds[0]]
        self._pending = [one for one, kind in zip(self._pending, kinds, strict=True) if kind != kinds[0]]
        size = self._largest.get(group[0].evaluation.y.shape, len(group))
        try:
            for start in range(0, len(group), size):
                self._evaluate_together(group[start : start + size])
        finally:  # Ctrl-C, in this thread
            for one in group:
                if one.is_open:
                    one.error = RuntimeError("the thread that evaluated for this one was interrupted")
            self._changed.notify_all()

    def _evaluate_together(self, group: Sequence[Pending]) -> None:
        """Where that fails, in halves: memory may be enough for these, and an error is then that of one of them."""
        failure = None
        try:
            for one, evaluated in zip(group, evaluate([one.evaluation for one in group]), strict=True):
                one.evaluated = evaluated
        except Exception as error:
            failure = released(error)
        if failure is None:
            return
        if len(group) == 1:
            group[0].error = failure
            return
        half = len(group) // 2
        if ran_out(failure):
            self._largest[group[0].evaluation.y.shape] = half
        self._evaluate_together(group[:half])
        self._evaluate_together(group[half:])


def _kind(evaluation: Evaluation) -> Hashable:
    """Evaluations of one kind can go through the network together."""
    problem = evaluation.problem
    network = (problem.model, problem.quality, evaluation.y.shape)
    return (*network, evaluation.loss is None, evaluation.exact, problem.bfloat16, problem.memory)
