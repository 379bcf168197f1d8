"""What each effort gains with each base model: J of real files against that of the unrefined file of the same model.

    python scripts/gain_by_base.py VALIDATION --base mbt2018-mean.safetensors --base elic-small.safetensors -q 1 -q 2

Central squares of the first pictures of a folder. Beside tto's efforts stands SGA with 2000 steps (Yang 2020), run by
`compare_refiners.py`, for as many of the pictures as `--sga` says: it takes minutes for each. Writes `gain.csv`, one
row per file, and prints a table of mean and worst changes.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Annotated

import torch
import typer
from compare_refiners import measure

from tto.codec import Codec, load_codec
from tto.image import Picture, central, load_picture

EFFORTS = ("none", "fast", "balanced", "best")
SGA = "SGA-2000"
PICTURES = (".png", ".jpg")


@dataclass(frozen=True)
class Row:
    """One file; `change` is that of J in percent, bpp and dB are those of the unrefined file."""

    base: str
    quality: float
    lambda_: float
    image: str
    method: str
    bpp: float
    psnr: float
    change: float
    seconds: float


def main(
    folder: Annotated[Path, typer.Argument(help="Of pictures.")],
    base: Annotated[list[str], typer.Option(help="A checkpoint's path or a model's name; several times.")],
    quality: Annotated[list[float], typer.Option("-q", "--quality")],
    crop: Annotated[int, typer.Option(help="Side of the squares.")] = 256,
    pictures: int = 6,
    sga: Annotated[int, typer.Option(help="How many of the pictures are refined by SGA, too.")] = 0,
    efforts: Annotated[str, typer.Option(help="Separated by commas.")] = ",".join(EFFORTS),
    threads: int = 1,
    out: Path = Path("gain.csv"),
) -> None:
    torch.set_num_threads(threads)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)[:pictures]
    squares = {path.stem: _square(path, crop) for path in paths}
    rows = []
    with open(out, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Row))
        for name in base:
            codec = load_codec(name, "cpu")
            for q in quality:
                for row in rows_of(codec, Path(name).stem, q, squares, efforts.split(","), sga):
                    table.writerow(astuple(row))
                    file.flush()
                    rows.append(row)
    print(markdown(rows))


def _square(path: Path, side: int) -> Picture:
    picture = load_picture(path)
    return Picture(central(picture.rgb, side), picture.grayscale)


def rows_of(
    codec: Codec, base: str, quality: float, squares: dict[str, Picture], efforts: Sequence[str], sga: int
) -> Iterator[Row]:
    """Each effort on every picture, and SGA on the first `sga` of them."""
    lambda_ = float(codec.model.lambda_at(quality))
    for i, (image, picture) in enumerate(squares.items()):
        for effort in efforts:
            result = codec.compress(picture.rgb, quality, effort=effort)
            change = 100 * (result.J / result.base_J - 1)
            bpp = 8 * result.base_bytes / (result.width * result.height)
            yield Row(base, quality, lambda_, image, effort, bpp, result.base_psnr, change, result.seconds)
        if i < sga:
            *_, last = measure(codec, picture, image, quality, "sga", 2000)
            yield Row(base, quality, lambda_, image, SGA, bpp, result.base_psnr, last.change, last.seconds)


def markdown(rows: Sequence[Row]) -> str:
    """A row for each base and rate: unrefined bpp and PSNR, then mean change and the worst of any picture."""
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = [
        f"| base | λ | bpp | dB | {' | '.join(methods)} |",
        f"|---|---:|---:|---:|{'---:|' * len(methods)}",
    ]
    groups = defaultdict(list)
    for row in rows:
        groups[row.base, row.lambda_].append(row)
    for (base, lambda_), group in groups.items():
        unrefined = {row.image: row for row in group}.values()
        bpp, psnr = (sum(values) / len(unrefined) for values in zip(*((r.bpp, r.psnr) for r in unrefined), strict=True))
        cells = [_cell([row.change for row in group if row.method == method]) for method in methods]
        lines.append(f"| {base} | {lambda_:g} | {bpp:.3f} | {psnr:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(changes: Sequence[float]) -> str:
    if not changes:
        return ""
    return f"{sum(changes) / len(changes):+.2f} % ({max(changes):+.2f}, n = {len(changes)})"


if __name__ == "__main__":
    typer.run(main)
