"""Everything that a run leaves in its folder.

results.csv  results.json     every file that was measured; means, BD-rates and the machine
summary.md   summary.tex      the tables
rd.png       rd.svg           the plot
report.html                   all of it on one page
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tto.bench.curves import Curve, lossless, mean_curves, measured_metrics
from tto.bench.machine import describe_machine
from tto.bench.measure import Failure, Machine, Measured, NothingMeasured
from tto.bench.plots import write_plots
from tto.bench.published import published_curves
from tto.bench.report.examples import make_examples
from tto.bench.report.html import About, build_page
from tto.bench.rows import Row, row_to_json, to_json_value, write_csv
from tto.bench.scores import AXES
from tto.bench.summary import Summary, summarize
from tto.bench.tables import bd_rate_cells, failure_lines, latex, markdown, point_cells, summary_cells
from tto.files import write_atomic

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """published: name of the data set whose published curves to draw, or empty; examples: how many images the page
    shows; command: what was typed; anchor: label of the curve that the table compares with, empty for the first anchor;
    images: what is to be said of them; missing: anchors that were left out, and why.
    """

    title: str
    published: str
    examples: int
    command: str
    anchor: str = ""
    images: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)


def write_report(measured: Measured, machine: Machine, options: Options) -> Summary:
    """Writes all files of the report into the machine's folder, once the page is made; returns what its table says."""
    folder, (tasks, rows, failures) = machine.folder, measured
    exact = lossless(rows)
    compared = [row for row in rows if row.image not in exact]
    left_out = {name: f"{row.label} gives it back exactly" for name, row in exact.items()}
    for name, reason in left_out.items():
        LOG.warning("%s is left out of all means and BD-rates: %s", name, reason)
    curves = mean_curves(compared)
    if not any(curve.points for curve in curves):
        raise NothingMeasured(f"no quality of any codec could be measured on every image: {failures[0].reason}")
    summary = summarize([*curves, *published_curves(options.published)], compared, options.anchor)
    images = len({row.image for row in compared})
    title = f"{options.title}: {images} image{'s' * (images != 1)}"
    codecs = "1 codec or effort" if len(curves) == 1 else f"{len(curves)} codecs and efforts"
    facts = _facts(rows, machine, options) | {name: f"left out of all means: {why}" for name, why in left_out.items()}
    about = About(title, f"{codecs}, {len(rows)} files", facts)
    main = _main_curve(curves).label
    examples = make_examples(tasks, rows, main, machine, options.examples) if options.examples else []
    page = build_page(about, rows, summary, failures, examples, main)
    write_csv(folder / "results.csv", rows)
    _write_json(folder / "results.json", about, rows, summary, failures)
    write_atomic(folder / "summary.md", _tables(about, summary, failures).encode())
    write_atomic(folder / "summary.tex", latex(*summary_cells(summary, failures)).encode())
    write_plots(folder, summary.curves, title)
    write_atomic(folder / "report.html", page.encode())
    return summary


def _main_curve(curves: Sequence[Curve]) -> Curve:
    """The last effort of the first model, or the first codec."""
    curves = [curve for curve in curves if curve.points]
    models = [curve for curve in curves if curve.effort]
    return [curve for curve in models if curve.codec == models[0].codec][-1] if models else curves[0]


def _facts(rows: Sequence[Row], machine: Machine, options: Options) -> dict[str, str]:
    facts = {"command": options.command, "images": options.images or ", ".join(sorted({row.dataset for row in rows}))}
    contents = sorted({row.content for row in rows})
    facts["checksum"] = f"{sha256(''.join(contents).encode()).hexdigest()[:16]} of the pixels of these images"
    facts |= describe_machine()
    measured_on = Counter(row.processor or "what an earlier version did not note" for row in rows)
    facts["seconds"] = "; ".join(f"{files} files on {name}" for name, files in measured_on.most_common())
    facts["processes"] = f"{machine.jobs}, each with {machine.threads} thread{'s' * (machine.threads != 1)}"
    facts |= {name: f"left out: {reason}" for name, reason in options.missing.items()}
    for row in {row.label: row for row in rows}.values():
        facts[row.label] = f"{row.settings}; {row.version}"
    return facts


def _tables(about: About, summary: Summary, failures: Sequence[Failure]) -> str:
    return "\n".join(
        [
            f"# {about.title}\n",
            markdown(*summary_cells(summary, failures)),
            *(f"- {line}" for line in failure_lines(failures)),
            "BD-rate on PSNR over the range both curves reach, negative is better; the interval is of the choice of "
            f"images (bootstrap). {AXES} Rates are bytes of files on disk.\n",
            *(markdown(header, cells) for header, cells in _bd_rates(summary) if cells),
            markdown(*point_cells(summary.curves)),
            *(f"- {name}: `{text}`" for name, text in about.facts.items()),
            "",
        ]
    )


def _bd_rates(summary: Summary) -> Iterator[tuple[list[str], list[list[str]]]]:
    return (bd_rate_cells(summary, metric) for metric in measured_metrics(summary.curves))


def _write_json(path: Path, about: About, rows: Sequence[Row], summary: Summary, failures: Sequence[Failure]) -> None:
    record = {
        "title": about.title,
        "about": about.facts,
        "means": AXES,
        "anchor": summary.anchor,
        "curves": [_clean(asdict(line)) for line in summary.lines],
        "rows": [row_to_json(row) for row in rows],
        "failures": [asdict(failure) for failure in failures],
    }
    write_atomic(path, json.dumps(record, indent=1, allow_nan=False).encode())


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return to_json_value(value)
