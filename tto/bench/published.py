"""Published rate–distortion curves, with where each was published (`data/*.json`).

They are means over the whole set as their authors report them, on their machines and by their programs: drawn
dotted beside what is measured here, never mixed with it.
"""

from __future__ import annotations

from tto.bench.curves import Curve, published_point
from tto.bench.datasets import dataset_names, load_dataset

REFERENCES = ("vtm-9.1", "bpg-444")
"""Published curves that serve as anchors of BD-rates."""


def published_curves(dataset: str) -> list[Curve]:
    """Curves of a data set, one per codec; none for a set without published ones. PSNR only."""
    if dataset not in dataset_names():
        return []
    curves = []
    for name, record in load_dataset(dataset).published.items():
        points = [published_point(bpp, psnr) for bpp, psnr in zip(record["bpp"], record["psnr"], strict=True)]
        points.sort(key=lambda point: point.bpp)
        curves.append(Curve(name, "", f"{name}, published", tuple(points), record["source"]))
    return curves
