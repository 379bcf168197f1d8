"""tto demo: a photograph that comes with tto, compressed without and with refinement, beside other formats' files that
have no fewer bytes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tto.cli.bars import Bars
from tto.cli.compress import open_codec
from tto.cli.jobs import write_output
from tto.cli.options import Device, Effort, Model, Threads
from tto.cli.refining import row_of
from tto.errors import FileError
from tto.files import make_folder
from tto.models import DEFAULT_MODEL, check_model

if TYPE_CHECKING:
    from PIL import Image

    from tto.codec import AnyCodec, Result
    from tto.image import Picture

EPILOG = """Examples:

tto demo

tto demo --effort best --out demo/"""
QUALITIES = (2.0, 4.0, 6.0)
RIVALS = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF"}
DETAIL = (0.275, 0.1, 0.71, 0.85)
"""Left, top, right and bottom of what is shown enlarged, as parts of width and height."""
GAP = 8  # pixels between pictures that stand side by side
LABEL_HEIGHT, FONT_SIZE = 24, 14


class Shown(NamedTuple):
    """A picture and what it is; `data` is its file, `psnr` in dB."""

    name: str
    image: Image.Image
    data: bytes = b""
    psnr: float = float("inf")

    @property
    def label(self) -> str:
        return f"{self.name}: {len(self.data)} bytes, {self.psnr:.2f} dB" if self.data else self.name


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")] = Path("tto-demo"),
    model: Model = DEFAULT_MODEL,
    effort: Annotated[
        Effort, typer.Option(metavar="EFFORT", help="Refinement to show: none, fast, balanced, best or max.")
    ] = Effort.fast,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Compress a bundled photograph, show what refinement gains, and set it beside JPEG, WebP and AVIF.

    Of each other format it takes the smallest file that has no fewer bytes than tto's.
    """
    check_model(model)
    make_folder(out)
    photograph = bundled_photograph()
    typer.echo(f"{photograph.name} with {model}, effort {effort.value}; files go to {out}/")
    codec = open_codec(model, device, threads)
    from tto.image import load_picture

    picture = load_picture(photograph)
    original = Shown("original", picture.to_pil())
    write_picture(original.image, out / "original.png")
    qualities = sorted({min(quality, float(codec.qualities)) for quality in QUALITIES})
    rival_names = rivals_here()
    for line in heading(effort, rival_names):
        typer.echo(line)
    with Bars(len(qualities)) as bars:
        for quality in qualities:
            with bars.steps(f"quality {quality:g}") as show:
                result = refined(codec, picture, quality, effort, lambda progress, show=show: show(row_of(progress)))
                rivals = [rival(name, picture, result.bytes) for name in rival_names]
            typer.echo(row(quality, result, rivals))
            own = Shown(f"tto {effort.value}", result.image, result.data, result.psnr)
            write_all(out / f"quality-{quality:g}", original, own, rivals)
            bars.file_done()
    typer.echo(f"Look at {out / f'quality-{qualities[0]:g}-detail.png'}, and at the others beside it.")


def refined(codec: AnyCodec, picture: Picture, quality: float, effort: Effort, on_progress) -> Result:
    from tto.refine.state import Callbacks

    return codec.compress(picture, quality, effort=effort.value, callbacks=Callbacks(on_progress))


def rival(name: str, picture: Picture, size: int) -> Shown:
    """Another format's smallest file of at least `size` bytes."""
    from tto.bench.anchors import ANCHORS
    from tto.bench.anchors.anchor import at_least
    from tto.image import load_picture
    from tto.metrics import psnr

    anchor = ANCHORS[name]
    data = at_least(anchor, picture.to_pil(), size)
    image = anchor.decode(data)
    return Shown(RIVALS[name], image, data, psnr(picture.rgb, load_picture(image).rgb))


def rivals_here() -> list[str]:
    """Those that this machine's Pillow writes."""
    from tto.bench.anchors import ANCHORS

    return [name for name in RIVALS if not ANCHORS[name].missing()]


def heading(effort: Effort, rivals: Sequence[str]) -> list[str]:
    groups = ["unrefined", effort.value, *(RIVALS[name] for name in rivals)]
    units = ["bytes     dB"] * len(groups)
    units[1] += "       J"
    above = "  ".join(f"{name:>{len(unit)}}" for name, unit in zip(groups, units, strict=True))
    return [f"{'':7}  {above}", f"{'quality':7}  {'  '.join(units)}  seconds"]


def row(quality: float, result: Result, rivals: Sequence[Shown]) -> str:
    change = f"{100 * (result.J / result.base_J - 1):+.1f} %"
    cells = [
        f"{result.base_bytes:5}  {result.base_psnr:5.2f}",
        f"{result.bytes:5}  {result.psnr:5.2f}  {change:>6}",
        *(f"{len(each.data):5}  {each.psnr:5.2f}" for each in rivals),
    ]
    return f"{quality:7g}  {'  '.join(cells)}  {result.seconds:7.1f}"


def write_all(stem: Path, original: Shown, own: Shown, rivals: Sequence[Shown]) -> None:
    """The files, and all pictures beside each other: whole, and a detail."""
    write_output(stem.with_name(f"{stem.name}.tto"), own.data)
    write_picture(own.image, stem.with_name(f"{stem.name}.png"))
    for each in rivals:
        write_output(stem.with_name(f"{stem.name}.{each.name.lower()}"), each.data)
    shown = [original, own, *rivals]
    write_picture(side_by_side(shown, columns=3), stem.with_name(f"{stem.name}-compared.png"))
    details = [each._replace(image=detail(each.image)) for each in shown]
    write_picture(side_by_side(details, columns=len(details)), stem.with_name(f"{stem.name}-detail.png"))


def bundled_photograph() -> Path:
    """The photograph inside the package."""
    folder = Path(str(resources.files("tto"))) / "data"
    for path in sorted(folder.glob("demo.*")):
        return path
    raise FileError(f"the demo's photograph is missing from {folder}")


def write_picture(image: Image.Image, path: Path) -> None:
    from tto.image import encode_picture

    write_output(path, encode_picture(image, path))


def detail(image: Image.Image) -> Image.Image:
    left, top, right, bottom = DETAIL
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def side_by_side(shown: Sequence[Shown], columns: int) -> Image.Image:
    """Pictures of one size in rows, with a gap between them and their labels above."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = shown[0].image.size[0] + GAP, shown[0].image.size[1] + LABEL_HEIGHT + GAP
    rows = -(-len(shown) // columns)
    canvas = Image.new("RGB", (min(columns, len(shown)) * width - GAP, rows * height - GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for index, each in enumerate(shown):
        left, top = index % columns * width, index // columns * height
        draw.text((left, top + (LABEL_HEIGHT - FONT_SIZE) // 2 - 1), each.label, "black", font)
        canvas.paste(each.image.convert("RGB"), (left, top + LABEL_HEIGHT))
    return canvas
