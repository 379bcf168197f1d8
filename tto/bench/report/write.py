"""Everything that a run leaves in its folder.

results.csv  results.json     every file that was measured; means, BD-rates and the machine
summary.md   summary.tex      the tables
rd.png       rd.svg           the plot
report.html                   all of it on one page
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tto.bench.curves import MEAN_CONVENTION, Curve, mean_curves
from tto.bench.measure import Machine, Task
from tto.bench.plots import write_plots
from tto.bench.published import published_curves
from tto.bench.report.examples import make_examples
from tto.bench.report.html import About, build_page
from tto.bench.report.machine import describe_machine
from tto.bench.rows import Row, row_to_json, to_json_value, write_csv
from tto.bench.summary import SummaryLine, summarize
from tto.bench.tables import latex, markdown, ms_ssim_cells, point_cells, summary_cells
from tto.files import write_atomic


@dataclass(frozen=True)
class Options:
    """published: name of the data set whose published curves to draw, or empty; examples: how many images
    the page shows; command: what was typed.
    """

    title: str
    published: str
    examples: int
    command: str


def write_report(tasks: Sequence[Task], rows: Sequence[Row], machine: Machine, options: Options) -> str:
    """Writes all files of the report into the machine's folder; returns the table of curves."""
    curves = mean_curves(rows)
    lines = summarize([*curves, *published_curves(options.published)])
    folder, images = machine.folder, len({row.image for row in rows})
    title = f"{options.title}: {images} image{'s' * (images != 1)}"
    about = About(title, f"{len(curves)} codecs and efforts, {len(rows)} files", _facts(rows, machine, options))
    write_csv(folder / "results.csv", rows)
    _write_json(folder / "results.json", about, rows, lines)
    write_atomic(folder / "summary.md", _tables(about, lines).encode())
    write_atomic(folder / "summary.tex", latex(*summary_cells(lines)).encode())
    write_plots(folder, [line.curve for line in lines], title)
    main = _main_curve(curves).label
    examples = make_examples(tasks, rows, main, machine, options.examples) if options.examples else []
    write_atomic(folder / "report.html", build_page(about, rows, lines, examples, main).encode())
    return markdown(*summary_cells(lines))


def _main_curve(curves: Sequence[Curve]) -> Curve:
    """The last effort of the first model, or the first codec."""
    models = [curve for curve in curves if curve.effort]
    return [curve for curve in models if curve.codec == models[0].codec][-1] if models else curves[0]


def _facts(rows: Sequence[Row], machine: Machine, options: Options) -> dict[str, str]:
    facts = {"command": options.command, "images": ", ".join(sorted({row.dataset for row in rows}))}
    facts |= describe_machine()
    facts["processes"] = f"{machine.jobs}, each with {machine.threads} thread{'s' * (machine.threads != 1)}"
    for row in {row.label: row for row in rows}.values():
        facts[row.label] = f"{row.settings}; {row.version}"
    return facts


def _tables(about: About, lines: Sequence[SummaryLine]) -> str:
    curves = [line.curve for line in lines]
    return "\n".join(
        [
            f"# {about.title}\n",
            markdown(*summary_cells(lines)),
            markdown(*ms_ssim_cells(lines)) if ms_ssim_cells(lines)[1] else "",
            f"BD-rate on PSNR, negative is better. {MEAN_CONVENTION} Rates are bytes of files on disk.\n",
            markdown(*point_cells(curves)),
            *(f"- {name}: `{text}`" for name, text in about.facts.items()),
            "",
        ]
    )


def _write_json(path: Path, about: About, rows: Sequence[Row], lines: Sequence[SummaryLine]) -> None:
    record = {
        "title": about.title,
        "about": about.facts,
        "means": MEAN_CONVENTION,
        "curves": [_line_record(line) for line in lines],
        "rows": [row_to_json(row) for row in rows],
    }
    write_atomic(path, json.dumps(record, indent=1, allow_nan=False).encode())


def _line_record(line: SummaryLine) -> dict[str, Any]:
    record = asdict(line)
    for point, values in zip(line.curve.points, record["curve"]["points"], strict=True):
        values["ms_ssim_db"] = point.ms_ssim_db
    return _clean(record)


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return to_json_value(value)
