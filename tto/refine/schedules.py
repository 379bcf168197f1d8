"""Numbers that change over a phase, as functions of how much of it is done, t in [0, 1].

Never of the step's number: with a published constant such as exp(−1e-3·step) a run of 100 steps would not anneal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    def __call__(self, t: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, t: float) -> float:
        return self.value


@dataclass(frozen=True)
class Linear:
    """From start to end, as much more at every step."""

    start: float
    end: float

    def __call__(self, t: float) -> float:
        return self.start + (self.end - self.start) * t


@dataclass(frozen=True)
class Geometric:
    """From start to end, the same factor at every step."""

    start: float
    end: float

    def __call__(self, t: float) -> float:
        return self.start * (self.end / self.start) ** t


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from start to end (Loshchilov & Hutter 2017)."""

    start: float
    end: float = 0.0

    def __call__(self, t: float) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * t))
