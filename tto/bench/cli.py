"""tto bench"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tto.bench.datasets import dataset_names, open_dataset
from tto.bench.text import printable
from tto.cli import EXIT_ERROR
from tto.cli.log import print_line
from tto.cli.options import Device
from tto.cli.workplace import Workplace, absolute, absolute_model
from tto.errors import BadArgument
from tto.models import DEFAULT_MODEL
from tto.packages import require
from tto.workers import share_of_cores

if TYPE_CHECKING:
    from tto.bench.coders import Series
    from tto.bench.measure import Failure
    from tto.bench.rows import Row
    from tto.bench.summary import Summary
    from tto.ray_workers import RayActors

LOG = logging.getLogger(__name__)
NONE, ALL = "none", "all"
REPORTS = 10
EPILOG = """Examples:

tto bench kodak --limit 3 -q 2,4,6 --effort none,fast

tto bench photos/ -m none --anchors jpeg,hevc --metrics ssimulacra2 --crop 512 --out report"""


def bench(
    dataset: Annotated[
        str | None,
        typer.Argument(help=f"{', '.join(dataset_names())}, or a folder of images.", show_default=False),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "-m", "--model", metavar="LIST", help="Models, checkpoints, folders of one codec's checkpoints; or none."
        ),
    ] = DEFAULT_MODEL,
    effort: Annotated[
        str, typer.Option(metavar="LIST", help="Efforts of the models, by name or number of steps.")
    ] = NONE,
    quality: Annotated[
        str | None,
        typer.Option(
            "-q",
            "--quality",
            metavar="LIST",
            help="Qualities, or all of each model's; default: 2,4,6,8 where it has them.",
        ),
    ] = None,
    anchors: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="jpeg, jpeg2000, webp, avif (default); jpeg-baseline, avif-444, jxl, hevc, vvc, vvc-slow; all; none.",
        ),
    ] = "jpeg,jpeg2000,webp,avif",
    against: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Curve that the table's BD-rates are taken against; default: the first anchor."
        ),
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="LIST", help="More columns and plots: ssimulacra2, vmaf, lpips, dists; or none.")
    ] = NONE,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything; a finished part of it is used again.")
    ] = Path("report"),
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes; the cores, or the GPUs, are shared out.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Actors on a Ray cluster (HOST:PORT), or the one that runs here, or else one of this machine, one for "
            "each GPU or each --threads cores; all its machines see the same folders.",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Threads of each process; default: its share of the cores, with --ray 1."
        ),
    ] = None,
    device: Device = "auto",
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Only the first so many images.")] = 0,
    crop: Annotated[int, typer.Option(min=0, metavar="N", help="Only the central square of so many pixels.")] = 0,
    examples: Annotated[int, typer.Option(min=0, metavar="N", help="Images to look at in the page.")] = 2,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.csv B.csv", help="Compare two results.csv instead of measuring."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Print BD-rates of the published curves instead of measuring.")
    ] = False,
) -> None:
    """Measure codecs on images; write tables, plots and a page. Lists are separated by commas."""
    for package in ("bjontegaard", "matplotlib"):
        require(package, "bench")
    if compare is not None:
        return print_comparison(*compare)
    if dataset is None:
        raise BadArgument("which images? for example: tto bench kodak")
    if published:
        return print_published(dataset)
    workplace = Workplace(jobs, ray, threads or (share_of_cores(jobs or 1) if ray is None else None), device)
    workplace.check()
    here = device if ray is None else "cpu"
    if ray is not None:  # whose workers may be in other folders
        dataset, out = absolute(dataset), out.resolve()
    # Here because torch takes a while.
    from tto.bench.anchors import ANCHORS
    from tto.bench.coders import anchor_series, computed_on, missing_anchors, model_series
    from tto.bench.measure import Machine, measure, plan, sources
    from tto.bench.report.write import Options, write_report
    from tto.bench.scores import check_metrics

    wanted = check_metrics(parse_names(metrics))
    images = open_dataset(dataset)
    named = list(ANCHORS) if anchors == ALL else parse_names(anchors)
    missing = missing_anchors(named)
    for name, reason in missing.items():
        print_line(f"{name} is left out: {reason}")
    models = [name if ray is None else absolute_model(name) for name in parse_names(model)]
    series = model_series(models, parse_efforts(effort), None if quality is None else parse_numbers(quality), here)
    series += anchor_series([name for name in named if name not in missing])
    if not series:
        raise BadArgument("nothing to measure: no model and no anchor")
    published_here = images.name if images.complete and not (limit or crop) else ""
    check_reference(against, series, published_here)
    with workplace.open() as workforce:
        if ray is not None:
            series = computed_on(series, cast("RayActors", workforce).device)
        machine = Machine(out, device, workforce.number, workforce.threads or 1)
        tasks = plan(sources(images, limit, crop), series, machine)
        with progress(len(tasks)) as on_row:
            measured = measure(tasks, machine, wanted, on_row, workforce)
    options = Options(
        title=images.title + ", first images only" * (limit > 0) + f", centre {crop}x{crop}" * (crop > 0),
        published=published_here,
        examples=examples,
        command=printable(" ".join(["tto", *sys.argv[1:]])),
        anchor=against,
        images=images.about,
        missing=missing,
    )
    print_summary(write_report(measured, replace(machine, device=here), options), measured.failures)
    print(f"{out / 'report.html'} shows all of it")
    if measured.failures:
        raise typer.Exit(EXIT_ERROR)


def print_summary(summary: Summary, failures: Sequence[Failure]) -> None:
    """The one table, as Markdown or so that it fits a terminal, and what failed."""
    from tto.bench.tables import columns_that_fit, failure_lines, markdown, summary_cells

    header, cells = summary_cells(summary, failures)
    in_terminal = sys.stdout.isatty()
    table = columns_that_fit(header, cells, get_terminal_size().columns) if in_terminal else markdown(header, cells)
    print("\n".join([table, *failure_lines(failures)]))


def print_comparison(first: Path, second: Path) -> None:
    """`--compare`: the second run against the first."""
    from tto.bench.compare import compare_runs
    from tto.bench.rows import read_csv
    from tto.bench.tables import comparison_cells, markdown

    for comparison in compare_runs(read_csv(first), read_csv(second)):
        print(f"{comparison.label_b} ({second}) against {comparison.label_a} ({first})\n")
        print(markdown(*comparison_cells(comparison)))


def print_published(dataset: str) -> None:
    """`--published`: every published curve of a data set against the published anchors."""
    from tto.bench.published import published_curves
    from tto.bench.summary import summarize
    from tto.bench.tables import markdown, published_cells

    if dataset not in dataset_names():
        raise BadArgument(f"no published curves for {dataset}; there are some for {', '.join(dataset_names())}")
    print(markdown(*published_cells(summarize(published_curves(dataset)))))


def check_reference(wanted: str, series: Sequence[Series], published: str) -> None:
    """Raises `BadArgument` before the work where no curve will be called so. `published`: the data set's name, if its
    published curves are drawn.
    """
    from tto.bench.published import published_curves

    names = [name for one in (*series, *published_curves(published)) for name in (one.label, one.codec)]
    if wanted and wanted not in names:
        raise BadArgument(f"no curve {wanted!r} to compare with: there are {', '.join(dict.fromkeys(names))}")


def parse_names(text: str) -> list[str]:
    """`a,b` → [a, b]; `none` → []."""
    return [] if text == NONE else [name.strip() for name in text.split(",") if name.strip()]


def parse_efforts(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_numbers(text: str) -> list[float]:
    """`2,4.5` → [2.0, 4.5]; `all` → []. Raises `BadArgument`."""
    try:
        return [] if text == ALL else [float(part) for part in text.split(",")]
    except ValueError as error:
        raise BadArgument(f"--quality takes numbers separated by commas, or all, not {text!r}") from error


@contextmanager
def progress(total: int) -> Iterator[Callable]:
    """A bar with the time left on a terminal, a remark now and then elsewhere; yields what hears of each row."""
    if not sys.stderr.isatty():
        yield counting(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # The last column is what was measured last; names of files are no markup.
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def on_row(row: Row | Failure, is_new: bool) -> None:
            if is_new:
                bar.update(task, advance=1, description=f"{row.label} q{row.quality:g} {row.image}")
            else:  # no time was spent on it
                bar.update(task, total=(bar.tasks[0].total or 1) - 1)

        yield on_row


def counting(total: int) -> Callable[[Row | Failure, bool], None]:
    """What remarks how far it is, `REPORTS` times in all."""
    done = 0

    def on_row(row: Row | Failure, is_new: bool) -> None:
        nonlocal done
        done += 1
        if REPORTS * done // total > REPORTS * (done - 1) // total:
            LOG.info("%d of %d files", done, total)

    return on_row
