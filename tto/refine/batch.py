"""Several pictures refined at the same time, each in a thread of its own: their evaluations become batches.

Whoever comes last does what all have asked for. A device that one small picture cannot fill is used better so; what a
picture gets is, but for how sums round, what it gets alone.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from tto.refine.memory import ran_out
from tto.refine.problem import Answer, Task, answer


@dataclass(eq=False)
class Request:
    """A task, and in the end either its answer or what went wrong."""

    task: Task
    answer: Answer | None = None
    error: Exception | None = None

    @property
    def is_open(self) -> bool:
        return self.answer is None and self.error is None


class Batch:
    """Threads that are inside (`with batch:`) wait in `answer` for one another."""

    def __init__(self):
        self._members = 0
        self._requests: list[Request] = []
        self._changed = threading.Condition()
        self._largest: int | None = None

    def __enter__(self) -> Batch:
        with self._changed:
            self._members += 1
        return self

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._members -= 1
            self._changed.notify_all()

    def answer(self, task: Task) -> Answer:
        """Raises what evaluating this very task raises."""
        request = Request(task)
        with self._changed:
            self._requests.append(request)
            while request.is_open:
                if len(self._requests) >= self._members:
                    self._answer_all()
                    self._changed.notify_all()
                else:
                    self._changed.wait()
        if request.error is not None:
            raise request.error
        return request.answer

    def _answer_all(self) -> None:
        requests, self._requests = self._requests, []
        groups: dict[Hashable, list[Request]] = defaultdict(list)
        for request in requests:
            groups[_kind(request.task)].append(request)
        for group in groups.values():
            size = self._largest or len(group)
            for start in range(0, len(group), size):
                self._answer_together(group[start : start + size])

    def _answer_together(self, group: Sequence[Request]) -> None:
        """Where that fails, in halves: memory may be enough for these, and an error is then that of one task."""
        try:
            answers = answer([request.task for request in group])
        except Exception as error:
            if len(group) == 1:
                group[0].error = error
                return
            half = len(group) // 2
            if ran_out(error):
                self._largest = half
            self._answer_together(group[:half])
            self._answer_together(group[half:])
        else:
            for request, found in zip(group, answers, strict=True):
                request.answer = found


def _kind(task: Task) -> Hashable:
    """Tasks of one kind can be answered together."""
    problem = task.point.problem
    network = (problem.model, problem.quality, task.point.y.shape)
    return (*network, task.loss is None, task.exact, problem.bfloat16, problem.recompute)
