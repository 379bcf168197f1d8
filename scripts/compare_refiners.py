"""Ways to refine latents, side by side: the same model, pictures and λ; the true J after so many steps and seconds.

    python scripts/compare_refiners.py PICTURE... --crop 256 -q 3 -q 6 --out comparison

Writes `refiners.csv` (one row per picture, quality, method and number of steps) and `refiners.png` (mean gain against
seconds). J is that of real bytes and decoded pixels of the best latents so far; looking at them is not timed. With
`--everything` tto's efforts are as `tto compress` has them, filters and all, and those who have 500 steps and more get
filter, transform and codes for their latents in the same way as `best` does.
Peers run with their published constants, except that all of them start from the encoder's own latents and, as here,
walk all slices in every step. Their papers: see `METHODS`.
"""

from __future__ import annotations

import csv
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from tto.codec import Codec, load_codec, rd_cost
from tto.device import descends_in_bfloat16
from tto.image import Picture, central, load_picture
from tto.models import DEFAULT_MODEL
from tto.refine.descent import Phase
from tto.refine.distortion import SquaredError
from tto.refine.filtering import FitFilter, finished
from tto.refine.operation import SideSearch, run_all
from tto.refine.plan import Plan
from tto.refine.presets import BEST, EFFORTS, SIDE, Stage
from tto.refine.problem import Candidate, Problem
from tto.refine.rate import gaussian_bits
from tto.refine.relaxations import SGA, DeterministicAnnealing, SGAPlusSSL, StraightThrough, UniformNoise
from tto.refine.schedules import Constant, Geometric
from tto.refine.state import Callbacks, State

LOOKS = (1, 2, 5, 10, 25, 50, 100, 200, 500, 1000, 2000)
ADAM = (0.9, 0.999)


@dataclass(frozen=True)
class DelayedExponential:
    """start·exp(−rate·(t − delay)), never above start: the temperature of SGA (Yang 2020) in units of the run."""

    start: float
    rate: float
    delay: float

    def __call__(self, t: float) -> float:
        return self.start * min(1.0, math.exp(-self.rate * (t - self.delay)))


@dataclass(frozen=True)
class StepDown:
    """start, and `factor` times it once `at` of the phase is done."""

    start: float
    at: float
    factor: float

    def __call__(self, t: float) -> float:
        return self.start * (self.factor if t >= self.at else 1.0)


class AdagradPhase(Phase):
    """A phase of Adagrad."""

    def optimizer(self, latents: Sequence[torch.Tensor]) -> torch.optim.Optimizer:
        return torch.optim.Adagrad([{"params": [latent]} for latent in latents])


def _peer(steps, relaxation, step_size, temperature=Constant(1.0), kind=Phase) -> tuple[Stage, ...]:  # noqa: B008
    return ((kind(steps, relaxation, step_size, temperature, rate=gaussian_bits, betas=ADAM),),)


METHODS: dict[str, tuple[Stage, ...]] = {
    # Yang 2020, with two of its own baselines
    "sga": _peer(2000, SGA(), Constant(0.005), DelayedExponential(0.5, rate=2.0, delay=0.35)),
    "deterministic": _peer(
        2000, DeterministicAnnealing(), Constant(0.005), DelayedExponential(0.5, rate=2.0, delay=0.35)
    ),
    "uniform-noise": _peer(2000, UniformNoise(), Constant(0.005)),
    # Perugachi-Diaz 2024
    "sga+": _peer(2000, SGAPlusSSL(), Constant(0.005), DelayedExponential(1.0, rate=2.0, delay=0.35)),
    # Koyuncu 2024 (eContextformer)
    "straight-through": _peer(26, StraightThrough(), Geometric(0.06, 0.06 * 0.6**25)),
    # JPEG AI's rate-distortion optimization of latents
    "adagrad": _peer(8, StraightThrough(), Geometric(0.05, 0.05 * 0.7**7), kind=AdagradPhase),
    # Tsubota 2023 (universal-dic), its stage for latents
    "universal-dic": _peer(
        2000, SGA(), StepDown(0.001, at=0.8, factor=0.1), DelayedExponential(0.5, rate=2.0, delay=0.0)
    ),
    "fast": EFFORTS["fast"],
    "balanced": EFFORTS["balanced"],
    "best": (*EFFORTS["balanced"], BEST),
}
LATENTS = {name: tuple(tuple(o for o in stage if not isinstance(o, SideSearch)) for stage in METHODS[name])
           for name in METHODS}  # fmt: skip
BESIDE = (FitFilter(), *SIDE)
LEAST_STEPS = 500


@dataclass(frozen=True)
class Row:
    """J of a real file after `steps` steps, and its change against no refinement in percent."""

    image: str
    quality: float
    method: str
    steps: int
    seconds: float
    bytes: int
    J: float
    change: float


def compare(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...")],
    model: Annotated[str, typer.Option("-m", "--model")] = DEFAULT_MODEL,
    quality: Annotated[list[float], typer.Option("-q", "--quality")] = [3.0, 6.0],  # noqa: B006
    methods: Annotated[str, typer.Option(help="Names separated by commas.")] = ",".join(METHODS),
    crop: Annotated[int, typer.Option(help="Side of the central square to use, 0 for all.")] = 0,
    everything: Annotated[bool, typer.Option("--everything", help="With what travels beside latents.")] = False,
    most_steps: Annotated[int, typer.Option(help="Leave a run after so many of its steps.")] = 2000,
    threads: int = 1,
    out: Path = Path("comparison"),
) -> None:
    torch.set_num_threads(threads)
    codec = load_codec(model)
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    with open(out / "refiners.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Row))
        for path in pictures:
            picture = load_picture(path)
            picture = Picture(central(picture.rgb, crop), picture.grayscale)
            for q in quality:
                for method in methods.split(","):
                    for row in measure(codec, picture, path.stem, q, method, most_steps, everything):
                        table.writerow(astuple(row))
                        file.flush()
                        rows.append(row)
                    print(f"{path.stem} q{q:g} {method}: {row.change:+.2f} % in {row.steps} steps, {row.seconds:.1f} s")
    plot(rows, out / "refiners.png")


def measure(
    codec: Codec,
    picture: Picture,
    name: str,
    quality: float,
    method: str,
    most_steps: int,
    everything: bool = False,
) -> Iterator[Row]:
    """Runs one method on one picture and looks at the best latents so far after each number of `LOOKS`."""
    if everything and method in EFFORTS:
        done = codec.compress(picture, quality, effort=method)
        change = 100 * (done.J / done.base_J - 1)
        yield Row(name, quality, method, done.steps, done.seconds, len(done.data), done.J, change)
        return
    y, z = (latent.clone() for latent in codec.analyse(picture.rgb, quality))
    lambda_ = float(codec.model.lambda_at(quality))
    distortion = SquaredError(picture.rgb)
    fast = descends_in_bfloat16(codec.device)
    frame = (picture.height, picture.width, distortion, picture.grayscale)
    problem = Problem(codec.model, quality, lambda_, *frame, side_coder=codec.side_coder, bfloat16=fast)

    def real(found: Candidate, fit_scales: bool) -> tuple[int, float]:
        data = codec.pack(picture, found.y, found.z, quality, found.qp, side=found.side, fit_scales=fit_scales).data
        return len(data), rd_cost(len(data), distortion, load_picture(codec.decompress(data)).rgb, lambda_)

    base = real(problem.candidate(y, z, 128), fit_scales=False)[1]
    found: list[tuple[int, float, Candidate]] = []
    start, looking = time.perf_counter(), 0.0

    def look() -> None:
        nonlocal looking
        began = time.perf_counter()
        state.keep(problem.candidate(state.y.detach(), state.z.detach(), state.qp))
        found.append((state.steps, began - start - looking, state.best))
        looking += time.perf_counter() - began

    def should_stop() -> bool:
        if state.steps in LOOKS and (not found or found[-1][0] != state.steps):
            look()
        return state.steps >= most_steps

    stages = LATENTS[method]
    state = State(problem, y, z, 128, Plan(stages).budget, Callbacks(should_stop=should_stop))
    for stage in stages:
        run_all(stage, state)
    if found[-1][0] != state.steps:
        look()
    for steps, seconds, candidate in found:
        if everything and steps < LEAST_STEPS:
            continue
        began = time.perf_counter()
        best = with_all_beside(problem, candidate) if everything else candidate
        seconds += time.perf_counter() - began
        size, cost = real(best, fit_scales=everything or method in EFFORTS)
        yield Row(name, quality, method, steps, seconds, size, cost, 100 * (cost / base - 1))


def with_all_beside(problem: Problem, candidate: Candidate) -> Candidate:
    """A candidate with what `best` would put beside its latents."""
    stage = tuple(operation for operation in BESIDE if operation.possible(problem))
    state = State(problem, candidate.y, candidate.z, candidate.qp, Plan((stage,)).budget, Callbacks())
    run_all(stage, state)
    return finished(state.problem, state.best)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Mean change of J over pictures and qualities against mean seconds, one line per method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = defaultdict(list)
    for row in rows:
        points[row.method, row.steps].append((row.seconds, row.change))
    complete = max(map(len, points.values()))
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for method in dict.fromkeys(row.method for row in rows):
        means = [
            np.mean(values, axis=0)
            for (name, _), values in sorted(points.items())
            if name == method and len(values) == complete
        ]
        if means:
            axes.plot(*np.transpose(means), marker="o", markersize=3, label=method)
    axes.set(xscale="log", xlabel="seconds", ylabel="change of J (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    typer.run(compare)
