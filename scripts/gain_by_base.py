"""What each effort gains with each base model: J of real files against that of the unrefined file of the same model.

    python scripts/gain_by_base.py VALIDATION --base mbt2018-mean.safetensors --base RUN -q 1 -q 2

Central squares of the first pictures of a folder; a base is a checkpoint, a run folder's, or a name. Beside tto's
efforts stands SGA with 2000 steps (Yang 2020), run by `compare_refiners.py`, for as many of the pictures as `--sga`
says: it takes minutes for each. Writes `gain.csv`, one row per file, which a second run goes on with, and prints a
table of mean and worst changes. Qualities that a base does not have are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from compare_refiners import MOST_STEPS, Cell, measure
from measuring import Table, run

from tto.bench.coders import weights_of
from tto.bench.measure import digest_of_pixels
from tto.codec import Codec, load_codec
from tto.errors import TTOError
from tto.image import Picture, load_square

EFFORTS = ("none", "fast", "balanced", "best")
SGA = f"SGA-{MOST_STEPS}"
PICTURES = (".png", ".jpg")


@dataclass(frozen=True)
class Row:
    """One file; `change` is that of J in percent, bpp and dB are those of the unrefined file; `content` is a digest of
    the square's pixels.
    """

    base: str
    fingerprint: str
    quality: float
    lambda_: float
    image: str
    content: str
    crop: int
    method: str
    bpp: float
    psnr: float
    change: float
    seconds: float


def main(
    folder: Annotated[Path, typer.Argument(help="Of pictures.")],
    base: Annotated[list[str], typer.Option(help="A checkpoint's or run folder's path, or a model's name; several.")],
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
    squares = [(path.stem, load_square(path, crop)) for path in paths]
    table, failed = Table(out, Row), False
    for name in base:
        checkpoint = Path(name) / "model.safetensors"
        loaded = load_codec(str(checkpoint) if checkpoint.is_file() else name, "cpu")
        for q in (q for q in quality if q <= loaded.qualities):
            codec = loaded.at(q)
            for i, (image, picture) in enumerate(squares):
                key = {"image": image, "content": digest_of_pixels(picture.rgb), "crop": crop, "quality": q}
                for method in (*efforts.split(","), *(SGA,) * (i < sga)):
                    cell = Cell(name, weights_of(codec), method=method, most_steps=MOST_STEPS, **key)
                    if table.has(base=name, fingerprint=cell.fingerprint, method=method, **key):
                        continue
                    try:
                        table.add([row_of(codec, cell, picture)])
                    except TTOError as error:
                        print(f"{name} q{q:g} {image} {method}: {error}", flush=True)
                        failed = True
    print(markdown(table.rows))
    if failed:
        raise typer.Exit(1)


def row_of(codec: Codec, cell: Cell, picture: Picture) -> Row:
    lambda_ = float(codec.model.lambda_at(cell.quality))
    effort = "none" if cell.method == SGA else cell.method
    result = codec.compress(picture, cell.quality, effort=effort, metric="mse")
    change, seconds = 100 * (result.J / result.base_J - 1), result.seconds
    if cell.method == SGA:
        *_, last = measure(codec, picture, replace(cell, method="sga"))
        change, seconds = last.change, last.seconds
    bpp = 8 * result.base_bytes / (result.width * result.height)
    return Row(
        cell.model, cell.fingerprint, cell.quality, lambda_, cell.image, cell.content, cell.crop, cell.method,
        bpp, result.base_psnr, change, seconds,
    )  # fmt: skip


def markdown(rows: Sequence[Row]) -> str:
    """A row for each base, rate and crop: unrefined bpp and PSNR, then mean change and the worst of any picture."""
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = [
        f"| base | λ | crop | bpp | dB | {' | '.join(methods)} |",
        f"|---|---:|---:|---:|---:|{'---:|' * len(methods)}",
    ]
    groups = defaultdict(list)
    for row in rows:
        groups[row.base, row.fingerprint, row.lambda_, row.crop].append(row)
    for (base, _, lambda_, crop), group in groups.items():
        unrefined = {row.content: row for row in group}.values()
        bpp, psnr = (sum(values) / len(unrefined) for values in zip(*((r.bpp, r.psnr) for r in unrefined), strict=True))
        cells = [_cell([row.change for row in group if row.method == method]) for method in methods]
        lines.append(f"| {base} | {lambda_:g} | {crop} | {bpp:.3f} | {psnr:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(changes: Sequence[float]) -> str:
    if not changes:
        return ""
    return f"{sum(changes) / len(changes):+.2f} % ({max(changes):+.2f}, n = {len(changes)})"


if __name__ == "__main__":
    run(main)
