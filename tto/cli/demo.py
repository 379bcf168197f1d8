"""tto demo: a photograph that comes with tto, compressed without and with refinement, beside JPEG of the same size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tto.cli.jobs import write_output
from tto.cli.options import Device, Model
from tto.errors import FileError
from tto.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from PIL import Image

QUALITIES = (2.0, 4.0, 6.0)
COMPARISON = "quality-{:g}-original-tto-jpeg.png"
SEPARATOR = 8  # pixels between the pictures of a comparison


@dataclass(frozen=True)
class JPEGResult:
    data: bytes
    image: Image.Image


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("tto-demo"),
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    effort: Annotated[str, typer.Option(help="Refinement to show: none, fast, balanced or best.")] = "fast",
) -> None:
    """Compress a bundled photograph, show what refinement gains, and set it beside JPEG at equal size."""
    from rich.console import Console
    from rich.table import Table

    from tto.codec import load_codec
    from tto.image import load_picture
    from tto.metrics import psnr

    original = load_picture(bundled_photograph())
    photograph = original.to_pil()
    codec = load_codec(model, device)
    write_picture(photograph, out / "original.png")

    table = Table(title=f"{original.width}x{original.height} photograph, {model}")
    for column in ("quality", "bytes", "dB", f"bytes, {effort}", "dB", "J", "JPEG bytes", "dB", "s"):
        table.add_column(column, justify="right")
    qualities = sorted({min(quality, float(codec.qualities)) for quality in QUALITIES})
    for quality in qualities:
        result = codec.compress(photograph, quality, effort=effort)
        jpeg = jpeg_of_size(photograph, result.bytes)
        jpeg_psnr = psnr(original.rgb, load_picture(jpeg.image).rgb)
        unrefined = (str(result.base_bytes), f"{result.base_psnr:.2f}")
        refined = (str(result.bytes), f"{result.psnr:.2f}", f"{100 * (result.J / result.base_J - 1):+.1f} %")
        of_jpeg = (str(len(jpeg.data)), f"{jpeg_psnr:.2f}")
        table.add_row(f"{quality:g}", *unrefined, *refined, *of_jpeg, f"{result.seconds:.1f}")
        write_output(out / f"quality-{quality:g}.tto", result.data)
        write_output(out / f"quality-{quality:g}-jpeg.jpg", jpeg.data)
        write_picture(result.image, out / f"quality-{quality:g}.png")
        comparison = side_by_side([photograph, result.image, jpeg.image])
        write_picture(comparison, out / COMPARISON.format(quality))
    Console().print(table)
    typer.echo(f"Side by side: {out / COMPARISON.format(qualities[0])} and others beside it")


def bundled_photograph() -> Path:
    """The photograph inside the package."""
    folder = Path(str(resources.files("tto"))) / "data"
    for path in sorted(folder.glob("demo.*")):
        return path
    raise FileError(f"the demo's photograph is missing from {folder}")


def jpeg_of_size(image: Image.Image, max_bytes: int) -> JPEGResult:
    """The best JPEG (optimized, 4:2:0) of at most `max_bytes`, or the smallest there is."""
    low, high = 1, 95
    while low < high:  # the highest quality that fits
        middle = (low + high + 1) // 2
        if len(_jpeg(image, middle).data) <= max_bytes:
            low = middle
        else:
            high = middle - 1
    return _jpeg(image, low)


def _jpeg(image: Image.Image, quality: int) -> JPEGResult:
    from PIL import Image

    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True, exif=b"", icc_profile=None)
    with Image.open(buffer) as decoded:
        decoded.load()
    return JPEGResult(buffer.getvalue(), decoded)


def write_picture(image: Image.Image, path: Path) -> None:
    from tto.image import encode_picture

    write_output(path, encode_picture(image, path))


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row, with a white gap between them."""
    from PIL import Image

    width, height = images[0].size
    canvas = Image.new("RGB", (len(images) * (width + SEPARATOR) - SEPARATOR, height), "white")
    for index, image in enumerate(images):
        canvas.paste(image.convert("RGB"), (index * (width + SEPARATOR), 0))
    return canvas
