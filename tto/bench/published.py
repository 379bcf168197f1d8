"""Published rate–distortion curves, with where each was published (`data/*.json`).

They are means over the whole set as their authors report them, on their machines and by their programs: drawn
dashed beside what is measured here, never mixed with it.
"""

from __future__ import annotations

import json
import math
from importlib import resources

from tto.bench.curves import Curve, Point

DATASETS = ("kodak", "clic-professional-valid", "tecnick")
REFERENCES = ("vtm-9.1", "bpg-444")
"""Published curves that serve as anchors of BD-rates."""


def published_curves(dataset: str) -> list[Curve]:
    """Curves of a data set, one per codec; none for a set without published ones. PSNR only."""
    if dataset not in DATASETS:
        return []
    text = resources.files("tto.bench").joinpath("data", f"{dataset}.json").read_text(encoding="utf-8")
    return [
        Curve(name, "", f"{name}, published", _points(record["bpp"], record["psnr"]), record["source"])
        for name, record in json.loads(text)["codecs"].items()
    ]


def _points(rates: list[float], qualities: list[float]) -> tuple[Point, ...]:
    unknown = {field: math.nan for field in Point.__dataclass_fields__}
    points = [Point(**{**unknown, "bpp": bpp, "psnr": psnr}) for bpp, psnr in zip(rates, qualities, strict=True)]
    return tuple(sorted(points, key=lambda point: point.bpp))
