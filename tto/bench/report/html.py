"""The page: one HTML file with its data, styles and program inside, which asks the network for nothing."""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from html import escape
from importlib import resources

from tto.bench.curves import Curve, measured_metrics
from tto.bench.measure import Failure
from tto.bench.plots import MARGIN, PUBLISHED_DRAWN, measured_first
from tto.bench.report.examples import VIEW_SIDE, Example
from tto.bench.rows import Row, to_json_value
from tto.bench.scores import AXES, METRICS
from tto.bench.summary import UNREFINED, Summary, SummaryLine
from tto.bench.tables import bd_rate_cells, failure_lines, summary_cells

SCRIPTS = ("charts.js", "table.js", "viewer.js")
MODEL_HUES, ANCHOR_HUES = 3, 10  # colours that page.css defines
PALEST = 60  # percent of the full colour
BEFORE_SCORES = (
    ("image", "image", None),
    ("codec", "label", None),
    ("quality", "quality", None),
    ("bytes", "bytes", 0),
    ("bpp", "bpp", 4),
)
AFTER_SCORES = (
    ("J", "J", 4),
    ("steps", "steps", 0),
    ("encode s", "encode_seconds", 3),
    ("decode s", "decode_seconds", 3),
    ("memory MB", "peak_memory_mb", 0),
)
"""Title, field of `Row` and decimals (None: as it is) of the columns of the table of files."""


@dataclass(frozen=True)
class Column:
    """One column of the table of files."""

    title: str
    digits: int | None
    cells: list[object]


@dataclass(frozen=True)
class About:
    """What a reader must know of a run. facts: name → text, in the order of the page."""

    title: str
    subtitle: str
    facts: dict[str, str]


def build_page(
    about: About,
    rows: Sequence[Row],
    summary: Summary,
    failures: Sequence[Failure],
    examples: Sequence[Example],
    main: str,
) -> str:
    """The whole page as text. `main` is the label of the curve that is looked at first.

    The page may show pictures that lie in it and run the program that lies in it, and nothing else.
    """
    curves = summary.curves
    measured = [curve for curve in curves if not curve.source]
    anchor = next((curve.label for curve in measured if curve.is_anchor), "")
    right = main if main != anchor else measured[-1].label
    columns = _columns(rows)
    data = {
        "curves": _curves(curves, rows),
        "metrics": [{"name": metric, "title": METRICS[metric].axis} for metric in measured_metrics(measured)],
        "widest": MARGIN * max(rate for curve in measured_first(curves) for rate in curve.values("bpp")),
        "effort": _effort(summary.lines),
        "columns": [{"title": column.title, "digits": column.digits} for column in columns],
        "rows": [list(cells) for cells in zip(*(column.cells for column in columns), strict=True)],
        "mainCurve": main,
        "leftView": anchor if anchor not in ("", right) else "original",
        "rightView": right,
        "examples": [asdict(example) for example in examples],
    }
    style, script = _read("page.css"), "\n".join(map(_read, SCRIPTS))
    fillings = {
        "TITLE": escape(about.title),
        "SUBTITLE": escape(about.subtitle),
        "POLICY": f"style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        "AXES": escape(AXES),
        "ABOUT_PUBLISHED": "Dotted curves are as published, on their authors’ machines: see “How”."
        if any(curve.source for curve in curves)
        else "",
        "VIEW_SIDE": str(VIEW_SIDE),
        "SUMMARY": _summary_tables(summary, failures),
        "FAILURES": "".join(f"<p>{escape(line)}</p>" for line in failure_lines(failures)),
        "BD_RATES": "".join(_bd_rate_table(summary, metric) for metric in measured_metrics(curves)),
        "HOW": _facts(about.facts | _sources(curves)),
        "STYLE": style,
        "SCRIPT": script,
        # No "<" at all: neither an end of the script nor a comment can begin in it.
        "DATA": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # One pass: what is filled in is never searched for names.
    return re.sub("@([A-Z_]+)@", lambda name: fillings[name[1]], _read("page.html"))


def _hash(text: str) -> str:
    """As a content security policy names what it lets pass."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return resources.files("tto.bench.report").joinpath(name).read_text(encoding="utf-8")


def _cell(value: object) -> object:
    return to_json_value(round(value, 5) if isinstance(value, float) and math.isfinite(value) else value)


def _columns(rows: Sequence[Row]) -> list[Column]:
    """Columns that have a figure in at least one row: no steps where nothing was refined."""
    before, after = (
        [Column(title, digits, [_cell(getattr(row, field)) for row in rows]) for title, field, digits in fields]
        for fields in (BEFORE_SCORES, AFTER_SCORES)
    )
    scores = [
        Column(metric.title, metric.digits, [_cell(row.scores.get(name, math.nan)) for row in rows])
        for name, metric in METRICS.items()
    ]
    return [column for column in (*before, *scores, *after) if any(column.cells)]


def _is_shown(curve: Curve) -> bool:
    return not curve.source or curve.codec in PUBLISHED_DRAWN


def _curves(curves: Sequence[Curve], rows: Sequence[Row]) -> list[dict]:
    settings = {row.label: f"{row.settings} ({row.version})" for row in rows}
    models = list(dict.fromkeys(curve.codec for curve in curves if curve.effort))
    anchors = [curve.codec for curve in curves if curve.is_anchor]
    efforts = {model: [curve.effort for curve in curves if curve.codec == model and curve.effort] for model in models}
    described = []
    for curve in curves:
        one: dict[str, object] = {"label": curve.label, "source": curve.source}
        one["settings"] = settings.get(curve.label, "")
        one["shown"] = _is_shown(curve)
        if curve.source:
            one |= {"kind": "published"}
        elif curve.is_anchor:
            one |= {"kind": "anchor", "hue": anchors.index(curve.codec) % ANCHOR_HUES}
        else:
            steps = max(1, len(efforts[curve.codec]) - 1)
            place = efforts[curve.codec].index(curve.effort) if len(efforts[curve.codec]) > 1 else steps
            one |= {
                "kind": "model",
                "hue": models.index(curve.codec) % MODEL_HUES,
                "strength": round(PALEST + (100 - PALEST) * place / steps),
            }
        names = ("quality", "bpp", "encode_seconds", "decode_seconds")
        one["points"] = [
            {name: _cell(getattr(point, name)) for name in names}
            | {metric: _cell(point.on_axis(metric)) for metric in METRICS if metric in point.scores}
            for point in curve.points
        ]
        described.append(one)
    return described


def _effort(lines: Sequence[SummaryLine]) -> list[dict]:
    """For each model with a curve at effort none and others: what each effort gains and takes."""
    models = list(dict.fromkeys(line.curve.codec for line in lines if line.curve.effort))
    found = []
    for hue, model in enumerate(models):
        points = [
            {
                "effort": line.curve.effort,
                "encode_seconds": line.encode_seconds,
                "bd_rate": 0.0 if line.curve.effort == UNREFINED else line.against_none.percent,
                "J_gain": 0.0 if line.curve.effort == UNREFINED else line.J_gain,
            }
            for line in lines
            if line.curve.codec == model
        ]
        points = [point for point in points if math.isfinite(point["bd_rate"] + point["J_gain"])]
        if len(points) > 1:
            points.sort(key=lambda point: point["encode_seconds"])
            found.append({"codec": model, "hue": hue % MODEL_HUES, "points": points})
    return found


def _table(header: Sequence[str], cells: Sequence[Sequence[str]], published: Sequence[bool]) -> str:
    # A unit does not stand alone on a line, and words are not broken at a hyphen.
    head = "".join(f"<th>{escape(cell).replace(' s', '&nbsp;s').replace('-', '&#8209;')}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=published' if dashed else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
        for line, dashed in zip(cells, published, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _summary_tables(summary: Summary, failures: Sequence[Failure]) -> str:
    """What was measured and the published curves that are drawn; the other published ones folded away."""
    header, cells = summary_cells(summary, failures)
    shown = [_is_shown(curve) for curve in summary.curves]
    published = [bool(curve.source) for curve in summary.curves]
    main = _table(header, *_pick(cells, published, shown, True))
    if all(shown):
        return main
    rest = _table(header, *_pick(cells, published, shown, False))
    return f"{main}<details><summary>More published curves</summary>{rest}</details>"


def _pick(
    cells: Sequence[Sequence[str]], published: Sequence[bool], shown: Sequence[bool], wanted: bool
) -> tuple[list[Sequence[str]], list[bool]]:
    return (
        [line for line, is_shown in zip(cells, shown, strict=True) if is_shown == wanted],
        [flag for flag, is_shown in zip(published, shown, strict=True) if is_shown == wanted],
    )


def _bd_rate_table(summary: Summary, metric: str) -> str:
    header, cells = bd_rate_cells(summary, metric)
    if not cells:
        return ""
    sources = {curve.label: curve.source for curve in summary.curves}
    return f'<div class="scroll">{_table(header, cells, [bool(sources[row[0]]) for row in cells])}</div>'


def _sources(curves: Sequence[Curve]) -> dict[str, str]:
    return {curve.label: curve.source for curve in curves if curve.source}


def _facts(facts: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()) + "</dl>"
