"""What each part of refinement brings: real files of every combination, on the same pictures and qualities.

    python scripts/ablate.py PICTURE... -q 2 -q 4 -q 6 -q 8 --crop 256 --out ablation [--bounds]

Writes `ablation.csv` (one row for each picture, quality and variant) and `ablation.md` (means, BD-rate against the base
over the qualities). With `--bounds` also `bounds.csv` and `bounds.md`: what side information could bring without
quantization and without its rate, as change of J against latents and step alone, in percent; figures there are
estimates of the refinement, not of files.

Side information goes with further flips of symbols; what these bring alone is a variant of its own.
The relaxed rate is a ramp of the rate's weight over the first phase. "All of latents" is what is done without side
information: latents, their step (QP), and a step of σ for each slice. The adaptation of effort `max` is not measured.
"""

from __future__ import annotations

import copy
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Annotated, cast

import numpy as np
import torch
import typer
from measuring import run
from torch import Tensor

from tto.bench.bdrate import bd_rate
from tto.bench.measure import digest_of_pixels
from tto.codec import Codec, load_codec, rd_cost
from tto.container import NEUTRAL_QP
from tto.device import descends_in_bfloat16
from tto.errors import BadArgument
from tto.image import Picture, load_picture, load_square
from tto.metrics import psnr
from tto.models import DEFAULT_MODEL
from tto.refine import filtering
from tto.refine.compensation import CodeSearch
from tto.refine.descent import Phase
from tto.refine.distortion import make_distortion
from tto.refine.operation import Operation, SideSearch, run_all
from tto.refine.plan import Plan
from tto.refine.presets import BALANCED, BEST, FAST, SIDE, Stage
from tto.refine.problem import Candidate, Problem
from tto.refine.quantization_step import ChooseStep
from tto.refine.schedules import Linear
from tto.refine.state import Callbacks, State
from tto.refine.transform import fit_syntax, moments_of
from tto.side.compensation import CompensationCoder
from tto.side.filter import FilterCoder
from tto.side.side import Side
from tto.side.transform import TransformCoder
from tto.train.side_model import FIRST_CURVATURE

BASE, FULL = "base", "latents + QP + σ's step"
RAMP = Linear(0.7, 1.0)
"""Of the rate's weight, from the beginning of a phase to its end."""
DECODES = 3


@dataclass(frozen=True)
class Row:
    """One file. `content` is a digest of the picture's pixels, `J` with the quality's own λ; `seconds` of the whole
    encoding and of one decoding.
    """

    image: str
    content: str
    quality: float
    variant: str
    bytes: int
    bpp: float
    psnr: float
    J: float
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Bound:
    """Changes of J in percent."""

    image: str
    quality: float
    bound: str
    change: float


class FreeSide(Side):
    """Side information that costs nothing."""

    bits = 0


class FreeCodeSearch(CodeSearch):
    """Where codes and their mask cost nothing."""

    def __init__(self, problem: Problem, candidate: Candidate):
        super().__init__(replace(problem, side=FreeSide()), candidate)
        self._code_bits = torch.zeros_like(self._code_bits)

    def mask_bits(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        return (torch.zeros(len(codes)).to(self.vectors),) * 2


def relaxed(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """Stages whose first operation, a phase, has the ramp."""
    (first, *rest), *others = stages
    return ((replace(cast(Phase, first), rate_weight=RAMP), *rest), *others)


def without(kinds: type[Operation] | tuple[type[Operation], ...], operations: Stage) -> Stage:
    return tuple(operation for operation in operations if not isinstance(operation, kinds))


WITH_STEP = tuple(without(SideSearch, stage) for stage in (FAST, BALANCED, BEST))
LATENTS = tuple(without(ChooseStep, stage) for stage in WITH_STEP)
ALONE: dict[str, tuple[Stage, ...]] = {
    "latents": LATENTS,
    "latents + relaxed rate": relaxed(LATENTS),
    "latents + QP": WITH_STEP,
}
"""Without a step of σ for each slice, which all others but the base have."""
SEARCHES = tuple({type(operation): None for operation in SIDE if isinstance(operation, SideSearch)})
AFTERWARDS: dict[str, Stage] = {
    f"{FULL} + as many flips as below": without(SEARCHES, SIDE),
    **{
        f"{FULL} + {search.__name__}": without(tuple(other for other in SEARCHES if other is not search), SIDE)
        for search in SEARCHES
    },
    "all": SIDE,
}


def ablate(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...")],
    model: Annotated[str, typer.Option("-m", "--model")] = DEFAULT_MODEL,
    quality: Annotated[list[float], typer.Option("-q", "--quality")] = [2.0, 4.0, 6.0],  # noqa: B006
    crop: Annotated[int, typer.Option(help="Side of the central square to use, 0 for all.")] = 0,
    threads: int = 1,
    bounds: Annotated[bool, typer.Option("--bounds", help="Also what side information could bring.")] = False,
    out: Path = Path("ablation"),
) -> None:
    torch.set_num_threads(threads)
    codec = load_codec(model)
    if codec.side_coder.modules is None:
        raise BadArgument(f"{model} has no side modules")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    limits: list[Bound] = []
    for path in pictures:
        picture = load_square(path, crop)
        for q in quality:
            bench = Bench(codec, picture, path.stem, q)
            for row in bench.rows():
                rows.append(row)
                print(
                    f"{path.stem} q{q:g} {row.variant}: {row.bytes} bytes, {row.psnr:.2f} dB, J {row.J:.4f}", flush=True
                )
            if bounds:
                limits += bench.bounds()
            write_csv(out / "ablation.csv", Row, rows)
            (out / "ablation.md").write_text(summary(rows), encoding="utf-8")
            if bounds:
                write_csv(out / "bounds.csv", Bound, limits)
                (out / "bounds.md").write_text(summary_of_bounds(limits), encoding="utf-8")


class Bench:
    """One picture at one quality, and what has been found for it."""

    def __init__(self, codec: Codec, picture: Picture, name: str, quality: float):
        self.codec, self.picture, self.name, self.quality = codec, picture, name, quality
        began = time.perf_counter()
        self.y, self.z = (latent.clone() for latent in codec.analyse(picture.rgb, quality))
        self.analysis_seconds = time.perf_counter() - began
        self.problem = Problem(
            codec.model,
            quality,
            float(codec.model.lambda_at(quality)),
            picture.height,
            picture.width,
            make_distortion(picture.rgb, "mse"),
            picture.grayscale,
            side_coder=codec.side_coder,
            bfloat16=descends_in_bfloat16(codec.device),
        )

    def rows(self) -> Iterator[Row]:
        yield self._row(BASE, self.problem.candidate(self.y, self.z, NEUTRAL_QP), 0.0, fit_scales=False)
        for variant, stages in ALONE.items():
            state, seconds = self._refined(stages)
            yield self._row(variant, state.best, seconds, fit_scales=False)
        self.full = state.best
        yield self._row(FULL, self.full, seconds)
        yield self._row(f"{FULL} + MSC everywhere", *self._everywhere(seconds))
        for variant, operations in AFTERWARDS.items():
            continued, more = self._go_on(copy.copy(state), (operations,))
            yield self._row(variant, continued.best, seconds + more)

    def _refined(self, stages: tuple[Stage, ...]) -> tuple[State, float]:
        budget = Plan(stages).budget
        return self._go_on(State(self.problem, self.y, self.z, NEUTRAL_QP, budget, Callbacks()), stages)

    def _go_on(self, state: State, stages: tuple[Stage, ...]) -> tuple[State, float]:
        """Each stage begins with the best so far, as `tto.refine.engine` has it."""
        began = time.perf_counter()
        for stage in stages:
            run_all(stage, state)
            state.go_on_with_side()
        return state, time.perf_counter() - began

    def _everywhere(self, seconds: float) -> tuple[Candidate, float]:
        """A code at every position: the one that the encoder gives, as without a mask."""
        began = time.perf_counter()
        step = self._step()
        with torch.no_grad():
            features = self.codec.side_coder.modules.msc.encoder(step)
            distances = torch.cdist(features[0].flatten(1).T, self.codec.side_coder.modules.msc.codebook)
        codes = distances.argmin(1).view(features.shape[-2:]).cpu().numpy()
        return self._with(
            Side().with_(self.codec.side_coder[CompensationCoder].make(codes))
        ), seconds + time.perf_counter() - began

    def _row(self, variant: str, found: Candidate, seconds: float, fit_scales: bool = True) -> Row:
        began = time.perf_counter()
        data = self.codec.pack(
            self.picture, found.y, found.z, self.quality, found.qp, side=found.side, fit_scales=fit_scales
        ).data
        seconds += self.analysis_seconds + time.perf_counter() - began
        decoding = []
        for _ in range(DECODES):
            began = time.perf_counter()
            decoded = load_picture(self.codec.decompress(data)).rgb
            decoding.append(time.perf_counter() - began)
        cost = rd_cost(len(data), self.problem.distortion, decoded, self.problem.lambda_)
        figures = (8 * len(data) / self.problem.pixels, psnr(self.picture.rgb, decoded), cost)
        content = digest_of_pixels(self.picture.rgb)
        return Row(self.name, content, self.quality, variant, len(data), *figures, seconds, median(decoding))

    def bounds(self) -> Iterator[Bound]:
        """After `rows`."""
        coder = self.codec.side_coder
        bare = self.problem
        outcome = bare.judge(self.full.y, self.full.z, self.full.qp)
        with torch.no_grad():
            x_hat = bare.synthesise(outcome.y_hat)
            moments, of_filter = moments_of(bare, x_hat), filtering.moments_of(bare, x_hat)
        transform = coder[TransformCoder].make(fit_syntax(bare, moments))
        filters = coder[FilterCoder].make(filtering.fit_levels(bare, of_filter))
        best_filter = torch.from_numpy(of_filter.best())
        found = {
            "MSC with codebook, no rate": self._search(FreeCodeSearch),
            "MSC with codebook and rate": self._search(CodeSearch),
            "DDT without syntax, no rate": self._with(FreeSide((replace(transform, matrix=moments.best_matrix()),))),
            "DDT with quantized syntax, no rate": self._with(FreeSide((transform,))),
            "DDT with quantized syntax and rate": self._with(Side((transform,))),
            "filter without levels, no rate": self._with(FreeSide((replace(filters, coefficients=best_filter),))),
            "filter with levels, no rate": self._with(FreeSide((filters,))),
            "filter with levels and rate": self._with(Side().with_(filters)),
        }
        for name, candidate in found.items():
            yield Bound(self.name, self.quality, name, 100 * (candidate.J / self.full.J - 1))

    def _search(self, search: Callable[[Problem, Candidate], CodeSearch]) -> Candidate:
        searching = search(self.problem, self.full)
        searching.run(False, lambda best: True)
        return searching.best

    def _with(self, side: Side) -> Candidate:
        return replace(self.problem, side=side).candidate(self.full.y, self.full.z, self.full.qp)

    def _step(self) -> Tensor:
        """What the encoder was trained on: the step from ŷ that should lower distortion most."""
        gradient = CodeSearch(self.problem, self.full).landscape().gradient
        return -gradient.T.view_as(self.full.y_hat) / FIRST_CURVATURE


def summary(rows: Sequence[Row]) -> str:
    """Markdown: means over pictures and qualities, in the order of the variants."""
    lines = [
        "| variant | bytes | PSNR (dB) | J against base (%) | against all of latents (%) | worst (%) | BD-rate (%) "
        "| encode (s) | decode (s) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        against_base, against_full = _changes(rows, own, BASE), _changes(rows, own, FULL)
        worst = max(against_full) if against_full else float("nan")
        means = [np.mean([getattr(row, name) for row in own]) for name in ("bytes", "psnr")]
        seconds = [np.mean([getattr(row, name) for row in own]) for name in ("encode_seconds", "decode_seconds")]
        lines.append(
            f"| {variant} | {means[0]:.0f} | {means[1]:.2f} | {np.mean(against_base):+.2f} "
            f"| {np.mean(against_full) if against_full else float('nan'):+.2f} | {worst:+.2f} "
            f"| {bd_rate(*_curve(rows, BASE), *_curve(rows, variant)):+.2f} | {seconds[0]:.1f} | {seconds[1]:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _changes(rows: Sequence[Row], own: Sequence[Row], against: str) -> list[float]:
    """Of J in percent, for each picture and quality that has both."""
    anchors = {(row.content, row.quality): row.J for row in rows if row.variant == against}
    pairs = [(row.J, anchors.get((row.content, row.quality))) for row in own]
    return [100 * (J / anchor - 1) for J, anchor in pairs if anchor is not None]


def _curve(rows: Sequence[Row], variant: str) -> tuple[list[float], list[float]]:
    """bpp and PSNR, means over pictures for each quality."""
    qualities = sorted({row.quality for row in rows})
    of_quality = [[row for row in rows if row.variant == variant and row.quality == q] for q in qualities]
    complete = [group for group in of_quality if group]
    return tuple(
        [float(np.mean([getattr(row, name) for row in group])) for group in complete] for name in ("bpp", "psnr")
    )


def summary_of_bounds(bounds: Sequence[Bound]) -> str:
    lines = ["| side information | change of J (%) | best | worst |", "|---|---:|---:|---:|"]
    for name in dict.fromkeys(bound.bound for bound in bounds):
        changes = [bound.change for bound in bounds if bound.bound == name]
        lines.append(f"| {name} | {np.mean(changes):+.2f} | {min(changes):+.2f} | {max(changes):+.2f} |")
    return "\n".join(lines) + "\n"


def write_csv(path: Path, kind: type, records: Sequence[Row | Bound]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(kind))
        table.writerows(astuple(record) for record in records)


if __name__ == "__main__":
    run(ablate)
