"""Tables for papers and pages, in Markdown and LaTeX."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tto.bench.anchors import ANCHORS
from tto.bench.bdrate import BDRate
from tto.bench.compare import Comparison
from tto.bench.curves import Curve, measured_metrics
from tto.bench.scores import METRICS
from tto.bench.summary import UNREFINED, Summary, SummaryLine

if TYPE_CHECKING:
    from tto.bench.measure import Failure

MISSING = "–"
GAP = "  "


def number(value: float, digits: int, sign: bool = False) -> str:
    """A figure with so many decimals, or a dash where there is none."""
    if math.isnan(value):
        return MISSING
    return f"{value:{'+' if sign else ''}.{digits}f}"


def percent(value: float) -> str:
    return number(value, 2, sign=True)


def summary_cells(summary: Summary, failures: Sequence[Failure] = ()) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the one table: chroma of anchors, BD-rates in percent and the range in which curves were
    compared, seconds per image, peak memory, size, failures.

    Columns that would hold nothing are left out.
    """
    header = ["codec", "chroma", f"BD-rate % vs {summary.anchor}", "compared dB", "95 % interval"]
    header += [f"BD-rate % vs {UNREFINED}", "J gain %", "encode s", "decode s", "memory MB", "parameters M", "bpp"]
    header += ["PSNR dB", "failed"]
    failed = Counter(failure.label for failure in failures)
    cells = [_summary_row(line, summary.anchor, failed) for line in summary.lines]
    return _without_empty(header, cells)


def _summary_row(line: SummaryLine, anchor: str, failed: Mapping[str, int]) -> list[str]:
    bd = line.bd_rate.get("psnr", {}).get(anchor)
    return [
        line.curve.label,
        ANCHORS[line.curve.codec].chroma if line.curve.is_anchor and line.curve.codec in ANCHORS else MISSING,
        "0" if line.curve.label == anchor else MISSING if bd is None else percent(bd.percent),
        _compared(bd),
        _interval(line.interval),
        percent(line.against_none.percent),
        number(line.J_gain, 2),
        number(line.encode_seconds, 3),
        number(line.decode_seconds, 3),
        number(line.peak_memory_mb, 0),
        number(line.parameters / 1e6, 1) if line.parameters else MISSING,
        _range(line.curve.values("bpp"), 2),
        _range(line.curve.on_axis("psnr"), 1),
        str(failed[line.curve.label]) if line.curve.label in failed else MISSING,
    ]


def _compared(bd: BDRate | None) -> str:
    """The range of quality that a BD-rate speaks of."""
    return MISSING if bd is None or math.isnan(bd.percent) else f"{bd.low:.1f}–{bd.high:.1f}"


def _interval(ends: tuple[float, float]) -> str:
    return MISSING if any(map(math.isnan, ends)) else f"{percent(ends[0])} … {percent(ends[1])}"


def _range(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f}–{max(values):.{digits}f}" if values else MISSING


def _without_empty(header: list[str], cells: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    told = [i for i in range(len(header)) if any(row[i] != MISSING for row in cells)]
    return [header[i] for i in told], [[row[i] for i in told] for row in cells]


def bd_rate_cells(summary: Summary, metric: str) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the BD-rates by one metric against every reference, and of how much of the narrower curve
    each speaks; no cells where there are none.
    """
    name = METRICS[metric].axis
    told = {label for line in summary.lines for label in line.bd_rate.get(metric, ())}
    references = [label for label in summary.references if label in told]
    cells = [
        [line.curve.label, *(cell for label in references for cell in _bd_cells(line, metric, label))]
        for line in summary.lines
        if references and line.curve.has(metric)
    ]
    heads = (cell for label in references for cell in (f"vs {label}", "overlap %"))
    return [f"{name}: BD-rate %", *heads], cells


def _bd_cells(line: SummaryLine, metric: str, label: str) -> tuple[str, str]:
    bd = line.bd_rate[metric].get(label)
    if bd is None:
        return "0" if line.curve.label == label else MISSING, MISSING
    return percent(bd.percent), number(100 * bd.overlap, 0)


def published_cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of published curves, with the range of each BD-rate."""
    names = summary.references
    header = [
        "codec",
        *(cell for name in names for cell in (f"BD-rate % vs {name}", "compared dB")),
        "source",
    ]
    return header, [_published_row(line, names) for line in summary.lines]


def _published_row(line: SummaryLine, names: Sequence[str]) -> list[str]:
    cells = [line.curve.codec]
    for name in names:
        bd = line.bd_rate["psnr"].get(name)
        cells += ["0", ""] if bd is None else [percent(bd.percent), _compared(bd)]
    return [*cells, line.curve.source]


def failure_lines(failures: Sequence[Failure]) -> list[str]:
    """What failed and why, one line for all qualities of a codec that failed on an image for the same reason."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for one in failures:
        groups.setdefault((one.label, one.image, one.reason), []).append(one.quality)
    return [
        f"failed: {label}, quality {', '.join(f'{quality:g}' for quality in qualities)}, {image}: {reason}"
        for (label, image, reason), qualities in groups.items()
    ]


def point_cells(curves: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of points, one line per codec, effort and quality measured here."""
    metrics = measured_metrics([curve for curve in curves if not curve.source])
    header = ["codec", "quality", "bpp", *(METRICS[metric].title for metric in metrics), "J", "encode s", "decode s"]
    cells = [
        [
            curve.label,
            f"{point.quality:g}",
            number(point.bpp, 4),
            *(number(point.scores.get(metric, math.nan), METRICS[metric].digits) for metric in metrics),
            number(point.J, 4),
            number(point.encode_seconds, 3),
            number(point.decode_seconds, 3),
        ]
        for curve in curves
        if not curve.source
        for point in curve.points
    ]
    return header, cells


def comparison_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and cells of `--compare`: the mean curve first, then every image."""
    header = ["image", "BD-rate %", "95 % interval", "compared dB", "overlap %"]
    interval = f"{percent(comparison.low)} … {percent(comparison.high)}"
    lines = [("mean curve", comparison.mean, interval)]
    lines += [(image, one, "") for image, one in comparison.per_image.items()]
    return header, [
        [name, percent(bd.percent), span, _compared(bd), number(100 * bd.overlap, 0)] for name, bd, span in lines
    ]


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A pipe table; columns of figures are right-aligned."""
    header, *cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *cells)]
    widths = [max(3, *(len(row[i]) for row in (header, *cells))) for i in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [header, rule, *cells]
    return "".join(
        "| "
        + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |\n"
        for line in lines
    )


def columns_that_fit(header: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> str:
    """A table for a terminal of so many characters: wrapped headings, and the first columns for which there is room.

    A last line names the others.
    """
    heads, columns = [], []
    for i, title in enumerate(header):
        column = [row[i] for row in cells]
        head = textwrap.wrap(title, max(map(len, (*title.split(), *column))), break_long_words=False)
        widest = max(map(len, (*head, *column)))
        if heads and sum(len(column[0]) + len(GAP) for column in columns) + widest > width:
            break
        align = str.rjust if heads else str.ljust
        heads.append([align(line, widest) for line in head])
        columns.append([align(cell, widest) for cell in column])
    tallest = max(map(len, heads))
    heads = [[" " * len(head[0])] * (tallest - len(head)) + head for head in heads]
    rule = [["─" * len(head[0])] for head in heads]
    lines = [GAP.join(row).rstrip() for table in (heads, rule, columns) for row in zip(*table, strict=True)]
    left_out = header[len(heads) :]
    note = [f"Not shown here for want of room: {', '.join(left_out)}."] if left_out else []
    return "\n".join([*lines, *note]) + "\n"


def latex(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A `tabular` with the rules of the booktabs package."""
    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        _latex_line(header),
        r"\midrule",
    ]
    return "\n".join([*lines, *map(_latex_line, cells), r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(_latex_text(cell) for cell in cells) + r" \\"


SIGNED = re.compile(r"[+-][\d.]+")
LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%_#${}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"–": "--", "…": r"\dots{}"}
)


def _latex_text(cell: str) -> str:
    if all(SIGNED.fullmatch(part) for part in cell.split(" … ")):  # an interval has two
        return r" \dots{} ".join(f"${part}$" for part in cell.split(" … "))  # a real minus sign
    return cell.translate(LATEX)
