"""tto bench"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from tto.cli.options import Device
from tto.errors import BadArgument
from tto.models import DEFAULT_MODEL

DEFAULT_QUALITIES = "2,4,6,8"
NONE = "none"
EPILOG = """Examples:

tto bench kodak --limit 3 -q 2,4,6 --effort none,fast

tto bench photos/ -m none --anchors jpeg,avif --crop 512 --out report"""


def bench(
    dataset: Annotated[
        str | None,
        typer.Argument(help="kodak, clic-professional-valid, tecnick, or a folder of images.", show_default=False),
    ] = None,
    model: Annotated[str, typer.Option("-m", "--model", help="Models or checkpoints, or none.")] = DEFAULT_MODEL,
    effort: Annotated[str, typer.Option(help="Efforts of the models, by name or number of steps.")] = NONE,
    quality: Annotated[str, typer.Option("-q", "--quality", help="Qualities.")] = DEFAULT_QUALITIES,
    anchors: Annotated[
        str, typer.Option(help="jpeg, jpeg2000, webp, avif (default); jpeg-baseline, avif-444; or none.")
    ] = "jpeg,jpeg2000,webp,avif",
    out: Annotated[Path, typer.Option(help="Folder for everything; a finished part of it is used again.")] = Path(
        "report"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Processes; the cores, or the GPUs, are shared out.")] = 1,
    device: Device = "auto",
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many images.")] = 0,
    crop: Annotated[int, typer.Option(min=0, help="Only the central square of so many pixels.")] = 0,
    lpips: Annotated[bool, typer.Option("--lpips", help="LPIPS too (needs the package lpips).")] = False,
    examples: Annotated[int, typer.Option(min=0, help="Images to look at in the page.")] = 2,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.csv B.csv", help="Compare two results.csv instead of measuring."),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Print BD-rates of the published curves instead of measuring.")
    ] = False,
) -> None:
    """Measure codecs on images; write tables, plots and a page. Lists are separated by commas."""
    check_packages(("bjontegaard", "matplotlib"), "tto[bench]")
    if lpips:
        check_packages(("lpips",), "lpips")
    if compare is not None:
        return print_comparison(*compare)
    if dataset is None:
        raise BadArgument("which images? for example: tto bench kodak")
    if published:
        return print_published(dataset)
    # Here because torch takes a while.
    from tto.bench.coders import anchor_series, model_series
    from tto.bench.datasets import open_dataset
    from tto.bench.measure import Machine, measure, plan
    from tto.bench.report.write import Options, write_report

    images = open_dataset(dataset)
    series = model_series(parse_names(model), parse_efforts(effort), parse_numbers(quality), device)
    series += anchor_series(parse_names(anchors))
    if not series:
        raise BadArgument("nothing to measure: no model and no anchor")
    tasks = plan(images.sources(limit, crop), series, lpips)
    machine = Machine(out, device, jobs, threads=max(1, (os.cpu_count() or 1) // jobs))
    with progress(len(tasks)) as on_row:
        rows = measure(tasks, machine, on_row)
    options = Options(
        title=images.title + ", first images only" * (limit > 0) + f", centre {crop}x{crop}" * (crop > 0),
        published=images.name if images.complete and not (limit or crop) else "",
        examples=examples,
        command=" ".join(["tto", *sys.argv[1:]]),
    )
    print(write_report(tasks, rows, machine, options))
    print(f"{out / 'report.html'} shows all of it")


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
    from tto.bench.published import DATASETS, published_curves
    from tto.bench.summary import summarize
    from tto.bench.tables import markdown, published_cells

    if dataset not in DATASETS:
        raise BadArgument(f"no published curves for {dataset}; there are some for {', '.join(DATASETS)}")
    print(markdown(*published_cells(summarize(published_curves(dataset)))))


def parse_names(text: str) -> list[str]:
    """`a,b` → [a, b]; `none` → []."""
    return [] if text == NONE else [name.strip() for name in text.split(",") if name.strip()]


def parse_efforts(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_numbers(text: str) -> list[float]:
    """`2,4.5` → [2.0, 4.5]. Raises `BadArgument`."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise BadArgument(f"--quality takes numbers separated by commas, not {text!r}") from error


def check_packages(names: Sequence[str], source: str) -> None:
    """Refuse to begin what would fail at the end. Raises `BadArgument`."""
    for name in names:
        if find_spec(name) is None:
            raise BadArgument(f"this needs the package {name}: pip install '{source}'")


@contextmanager
def progress(total: int) -> Iterator[Callable]:
    """A bar with the time left on a terminal, nothing elsewhere; yields what hears of each row."""
    if not sys.stderr.isatty():
        yield lambda row, is_new: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # The last column is what was measured last.
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def on_row(row, is_new: bool) -> None:
            if is_new:
                bar.update(task, advance=1, description=f"{row.label} q{row.quality:g} {row.image}")
            else:  # no time was spent on it
                bar.update(task, total=(bar.tasks[0].total or 1) - 1)

        yield on_row
