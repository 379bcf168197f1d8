"""Tables for papers and pages, in Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tto.bench.compare import Comparison
from tto.bench.curves import Curve
from tto.bench.summary import UNREFINED, SummaryLine, references

MISSING = "–"


def number(value: float, digits: int, sign: bool = False) -> str:
    """A figure with so many decimals, or a dash where there is none."""
    if math.isnan(value):
        return MISSING
    return f"{value:{'+' if sign else ''}.{digits}f}"


def percent(value: float) -> str:
    return number(value, 2, sign=True)


def summary_cells(lines: Sequence[SummaryLine]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of curves: BD-rates in percent, seconds per image.

    Columns that would hold nothing are left out.
    """
    names = [curve.label for curve in references([line.curve for line in lines])]
    header = ["codec", *(f"BD-rate % vs {name}" for name in [*names, UNREFINED])]
    header += ["J gain %", "encode s", "decode s", "bpp", "PSNR dB"]
    cells = [_summary_row(line, names) for line in lines]
    told = [i for i in range(len(header)) if any(row[i] != MISSING for row in cells)]
    return [header[i] for i in told], [[row[i] for i in told] for row in cells]


def _summary_row(line: SummaryLine, names: Sequence[str]) -> list[str]:
    return [
        line.curve.label,
        *(percent(line.bd_rate[name].percent) if name in line.bd_rate else "0" for name in names),
        percent(line.against_none.percent),
        number(line.J_gain, 2),
        number(line.encode_seconds, 3),
        number(line.decode_seconds, 3),
        _range(line.curve.values("bpp"), 2),
        _range(line.curve.values("psnr"), 1),
    ]


def _range(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f}–{max(values):.{digits}f}" if values else MISSING


def ms_ssim_cells(lines: Sequence[SummaryLine]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of BD-rates on MS-SSIM; no cells where nobody measured it."""
    names = list(dict.fromkeys(name for line in lines for name in line.bd_rate_ms_ssim))
    cells = [
        [line.curve.label]
        + [percent(bds[name].percent) if name in bds else "0" * (name == line.curve.label) for name in names]
        for line in lines
        if (bds := line.bd_rate_ms_ssim)
    ]
    return ["codec", *(f"MS-SSIM BD-rate % vs {name}" for name in names)], cells


def published_cells(lines: Sequence[SummaryLine]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of published curves, with the range of each BD-rate."""
    names = [curve.label for curve in references([line.curve for line in lines])]
    header = [
        "codec",
        *(cell for name in names for cell in (f"BD-rate % vs {name}", "compared dB")),
        "source",
    ]
    return header, [_published_row(line, names) for line in lines]


def _published_row(line: SummaryLine, names: Sequence[str]) -> list[str]:
    cells = [line.curve.codec]
    for name in names:
        bd = line.bd_rate.get(name)
        cells += ["0", ""] if bd is None else [percent(bd.percent), f"{bd.low:.1f}–{bd.high:.1f}"]
    return [*cells, line.curve.source]


def point_cells(curves: Sequence[Curve]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table of points, one line per codec, effort and quality measured here."""
    header = ["codec", "quality", "bpp", "PSNR dB", "MS-SSIM", "MS-SSIM dB", "J", "encode s", "decode s"]
    cells = [
        [
            curve.label,
            f"{point.quality:g}",
            number(point.bpp, 4),
            number(point.psnr, 2),
            number(point.ms_ssim, 4),
            number(point.ms_ssim_db, 2),
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
        [name, percent(bd.percent), span, f"{bd.low:.1f}–{bd.high:.1f}", number(100 * bd.overlap, 0)]
        for name, bd, span in lines
    ]


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A pipe table; columns of figures are right-aligned."""
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


def _latex_text(cell: str) -> str:
    if cell[:1] in "+-" and cell[1:2].isdigit():
        return f"${cell}$"  # a real minus sign
    for character in "&%_#":
        cell = cell.replace(character, f"\\{character}")
    return cell.replace("–", "--").replace("…", r"\dots{}")
