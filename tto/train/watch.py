"""What a run keeps an eye on: averages for the log, steps that are not finite, a hyper-latent that spends nothing."""

from __future__ import annotations

import math
import time

from tto.train.errors import DeadHyperLatent, Diverged

NOT_FINITE_LIMIT = 10  # in a row
DEAD_BPP_Z = 1e-4
DEAD_AFTER = 400  # steps


class Averages:
    """Means of named values since the last log line, and steps per second."""

    def __init__(self):
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.monotonic()

    def add(self, values: dict[str, float]) -> None:
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means and `steps_per_second`, then starts anew."""
        now = time.monotonic()
        means = {name: total / self._count for name, total in self._sums.items()} if self._count else {}
        if "mse" in means:
            means["psnr"] = -10.0 * math.log10(max(means["mse"], 1e-10))
        means["steps_per_second"] = self._count / max(now - self._since, 1e-9)
        self._sums, self._count, self._since = {}, 0, now
        return means


class FiniteWatch:
    """Counts steps whose loss or gradient is not finite; they are skipped, and ten in a row end the run."""

    def __init__(self, skipped: int = 0):
        self.skipped = skipped
        self._in_a_row = 0

    def check(self, loss: float, gradient_norm: float, step: int) -> bool:
        """Whether the step may be taken. Raises `Diverged`."""
        if math.isfinite(loss) and math.isfinite(gradient_norm):
            self._in_a_row = 0
            return True
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= NOT_FINITE_LIMIT:
            raise Diverged(
                f"step {step}: loss {loss}, gradient norm {gradient_norm}: not finite {self._in_a_row} times in a row; "
                "lower the learning rate or use precision=fp32, then --resume"
            )
        return False


class HyperLatentWatch:
    """Ends a run whose hyper-latent spends practically no bits (design: it never recovers)."""

    def __init__(self):
        self._average: float | None = None
        self._steps = 0

    def check(self, bpp_z: float) -> None:
        """Takes the bits per pixel of z of one step. Raises `DeadHyperLatent`."""
        self._steps += 1
        self._average = bpp_z if self._average is None else 0.98 * self._average + 0.02 * bpp_z
        if self._steps > DEAD_AFTER and self._average < DEAD_BPP_Z:
            raise DeadHyperLatent(
                f"the hyper-latent spends {self._average:.1e} bits per pixel after {self._steps} steps of this run: "
                "it rounds to zero everywhere; start anew from another seed or initialization"
            )
