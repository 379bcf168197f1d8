"""How long a refinement goes on: so many steps, or so many seconds."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Of a whole refinement. With `seconds` each operation takes its share of them, however many steps that is."""

    steps: int
    seconds: float | None = None

    def share(self, steps: int) -> Share:
        """What an operation of so many of the steps has of it, from now on."""
        return Share(steps, None if self.seconds is None else self.seconds * steps / self.steps)


class Share:
    """How much of one operation is done, by steps or by the clock."""

    def __init__(self, planned: int, seconds: float | None):
        self.steps = 0
        self._planned, self._seconds = planned, seconds
        self._start = time.monotonic()

    @property
    def left(self) -> int:
        """How many steps there may be beyond those that were counted; by the clock nobody knows."""
        return sys.maxsize if self._seconds is not None else self._planned - self.steps

    def done(self) -> float | None:
        """A part in [0, 1] for the step that is to come, or None where there is none. Counts it."""
        self.steps += 1
        if self._seconds is None:
            return (self.steps - 1) / max(self._planned - 1, 1) if self.steps <= self._planned else None
        elapsed = time.monotonic() - self._start
        return elapsed / self._seconds if elapsed < self._seconds else None
