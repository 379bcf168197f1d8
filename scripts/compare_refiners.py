"""Ways to refine latents, side by side: the same model, pictures and λ; the true J after so many steps and seconds.

    python scripts/compare_refiners.py PICTURE... --crop 256 -q 3 -q 6 --out comparison
    python scripts/compare_refiners.py PICTURE... --crop 384 -q 4 --methods sga,fast,balanced,best --everything

Writes `refiners.csv` (one row per picture, quality, method and number of steps; a second run goes on with it) and
`refiners.png` (mean gain against seconds, of all rows with these weights and `--most-steps`). J is that of real bytes
and decoded pixels of the best latents so far. Seconds are those of a whole compression that ends there, reading the
file again included; looking at others is not.
Rows are of latents alone. With `--everything` rows of files with all beside them follow: tto's efforts as
`tto compress` has them, and, for those who have 500 steps and more, what `best` puts beside its latents put beside
theirs. Looks into a run are of its one schedule: SGA at 500 steps is not what SGA told to end there would give.
Peers run with their published constants, except that all of them start from the encoder's own latents and, as here,
walk all slices in every step. Their papers: see `METHODS`.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import Table, run

from tto.bench.coders import weights_of
from tto.bench.measure import digest_of_pixels
from tto.codec import Codec, load_codec, rd_cost
from tto.container import NEUTRAL_QP
from tto.device import descends_in_bfloat16
from tto.errors import TTOError
from tto.image import Picture, load_picture, load_square
from tto.models import DEFAULT_MODEL
from tto.refine.descent import Phase
from tto.refine.distortion import SquaredError
from tto.refine.filtering import FitFilter, finished
from tto.refine.operation import SideSearch, run_all
from tto.refine.plan import Plan
from tto.refine.presets import BEST, EFFORTS, SIDE, Stage, steps_of
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
MOST_STEPS = 2000
DECODES = 3
NONE = "none"


@dataclass(frozen=True)
class Cell:
    """One measurement. `content` is a digest of the square's pixels; a run is left after `most_steps`."""

    model: str
    fingerprint: str
    image: str
    content: str
    crop: int
    quality: float
    method: str
    most_steps: int

    @property
    def has_everything(self) -> bool:
        """Whether files with all beside the latents can be made of it."""
        if self.method in EFFORTS:
            return self.method != NONE
        return min(steps_of(LATENTS[self.method]), self.most_steps) >= LEAST_STEPS


@dataclass(frozen=True)
class Row(Cell):
    """A real file of a cell, its J, and the change against no refinement in percent.

    `everything` is 1 with all beside the latents, else 0; `decode_seconds` is a median of three.
    """

    everything: int
    steps: int
    seconds: float
    decode_seconds: float
    bytes: int
    J: float
    change: float


def compare(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...")],
    model: Annotated[str, typer.Option("-m", "--model")] = DEFAULT_MODEL,
    quality: Annotated[list[float], typer.Option("-q", "--quality")] = [3.0, 6.0],  # noqa: B006
    methods: Annotated[str, typer.Option(help="Names separated by commas.")] = ",".join(METHODS),
    crop: Annotated[int, typer.Option(help="Side of the central square to use, 0 for all.")] = 0,
    everything: Annotated[bool, typer.Option("--everything", help="Also with what travels beside latents.")] = False,
    most_steps: Annotated[int, typer.Option(min=1, help="Leave a run after so many of its steps.")] = MOST_STEPS,
    threads: int = 1,
    out: Path = Path("comparison"),
) -> None:
    torch.set_num_threads(threads)
    names = (NONE, *methods.split(","))
    if unknown := set(names) - {NONE, *METHODS}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(METHODS)}")
    codec = load_codec(model)
    networks = {codec.checked_quality(q): codec.at(q) for q in quality}
    squares = [(path.stem, load_square(path, crop)) for path in pictures]
    table = Table(out / "refiners.csv", Row)
    work = [
        (Cell(model, weights_of(network), image, digest_of_pixels(picture.rgb), crop, q, name, most_steps), picture)
        for image, picture in squares
        for q, network in networks.items()
        for name in names
    ]
    failed = False
    for cell, picture in work:
        wanted = (0, 1) if everything and cell.has_everything else (0,)
        missing = [kind for kind in wanted if not table.has(**vars(cell), everything=kind)]
        if not missing:
            continue
        try:
            rows = [
                row
                for row in measure(networks[cell.quality], picture, cell, everything=1 in missing)
                if row.everything in missing
            ]
        except TTOError as error:
            print(f"{cell}: {error}", flush=True)
            failed = True
            continue
        table.add(rows)
        for row in rows:
            print(
                f"{row.image} q{row.quality:g} {row.method}{', with all' * row.everything}: {row.change:+.2f} % "
                f"in {row.steps} steps, {row.seconds:.1f} s",
                flush=True,
            )
    weights = set(map(weights_of, networks.values()))
    shown = [row for row in table.rows if row.fingerprint in weights and row.most_steps == most_steps]
    plot(shown, out / "refiners.png")
    if failed:
        raise typer.Exit(1)


def measure(codec: Codec, picture: Picture, cell: Cell, everything: bool = False) -> Iterator[Row]:
    """Runs one method on one picture and looks at the best latents so far after each number of `LOOKS`."""
    quality, method = cell.quality, cell.method
    began = time.perf_counter()
    y, z = (latent.clone() for latent in codec.analyse(picture.rgb, quality))
    analysis = time.perf_counter() - began
    lambda_ = float(codec.model.lambda_at(quality))
    distortion = SquaredError(picture.rgb)
    frame = (picture.height, picture.width, distortion, picture.grayscale)
    reduced = descends_in_bfloat16(codec.device)
    lowered = codec.lowered if reduced else None
    side_coder = codec.side_coder
    problem = Problem(codec.model, quality, lambda_, *frame, side_coder=side_coder, bfloat16=reduced, lowered=lowered)
    base_J: float | None = None

    def decoded(data: bytes) -> tuple[np.ndarray, float]:
        seconds = []
        for _ in range(DECODES):
            began = time.perf_counter()
            rgb = load_picture(codec.decompress(data)).rgb
            seconds.append(time.perf_counter() - began)
        return rgb, median(seconds)

    def row_of(found: Candidate, steps: int, seconds: float, fit_scales: bool, beside: bool = False) -> Row:
        began = time.perf_counter()
        data = codec.pack(picture, found.y, found.z, quality, found.qp, side=found.side, fit_scales=fit_scales).data
        seconds += analysis + time.perf_counter() - began
        rgb, decoding = decoded(data)
        cost = rd_cost(len(data), distortion, rgb, lambda_)
        change = 100 * (cost / (base_J or cost) - 1)
        return Row(*astuple(cell), int(beside), steps, seconds + decoding, decoding, len(data), cost, change)

    unrefined = row_of(problem.candidate(y, z, NEUTRAL_QP), 0, 0.0, fit_scales=False)
    if method == NONE:
        yield unrefined
        return
    base_J = unrefined.J
    for steps, seconds, candidate in looks(problem, y, z, LATENTS[method], cell.most_steps):
        yield row_of(candidate, steps, seconds, fit_scales=method in EFFORTS)
        if everything and method not in EFFORTS and steps >= LEAST_STEPS:
            began = time.perf_counter()
            best = with_all_beside(problem, candidate)
            yield row_of(best, steps, seconds + time.perf_counter() - began, fit_scales=True, beside=True)
    if everything and method in EFFORTS:
        done = codec.compress(picture, quality, effort=method, metric="mse")
        decoding = decoded(done.data)[1]
        change = 100 * (done.J / done.base_J - 1)
        yield Row(*astuple(cell), 1, done.steps, done.seconds, decoding, len(done.data), done.J, change)


def looks(
    problem: Problem, y: torch.Tensor, z: torch.Tensor, stages: Sequence[Stage], most_steps: int
) -> list[tuple[int, float, Candidate]]:
    """Steps, seconds without looking, and the best candidate so far: at each of `LOOKS`, and at the end."""
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

    state = State(problem, y, z, NEUTRAL_QP, Plan(tuple(stages)).budget, Callbacks(should_stop=should_stop))
    for stage in stages:
        run_all(stage, state)
        state.go_on_with_side()
    if found[-1][0] != state.steps:
        look()
    return found


def with_all_beside(problem: Problem, candidate: Candidate) -> Candidate:
    """A candidate with what `best` would put beside its latents."""
    stage = tuple(operation for operation in BESIDE if operation.possible(problem))
    state = State(problem, candidate.y, candidate.z, candidate.qp, Plan((stage,)).budget, Callbacks())
    run_all(stage, state)
    return finished(state.problem, state.best)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Mean change of J over pictures and qualities against mean seconds, one line per method, dashed with all beside.

    Points are of numbers of steps that every picture was looked at, and of the ends of runs.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs: dict[tuple[str, int], dict[tuple, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        runs[row.method, row.everything][row.fingerprint, row.content, row.quality].append(row)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for (method, everything), of_method in runs.items():
        steps = set.intersection(*({row.steps for row in run} for run in of_method.values()))
        groups = [[row for run in of_method.values() for row in run if row.steps == n] for n in sorted(steps)]
        ends = [run[-1] for run in of_method.values()]
        if ends not in groups:
            groups.append(ends)
        points = [np.mean([(row.seconds, row.change) for row in group], axis=0) for group in groups]
        style, label = ("--", f"{method}, with all") if everything else ("-", method)
        axes.plot(*np.transpose(points), style, marker="o", markersize=3, label=label)
    axes.set(xscale="log", xlabel="seconds", ylabel="change of J (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    run(compare)
