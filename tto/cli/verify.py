"""tto verify: does a file decode, and to what?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tto.cli.decompress import DecoderModel, make_decoder
from tto.cli.options import Device, TTOFile
from tto.errors import BadArgument
from tto.files import read_bytes


def verify(
    file: TTOFile,
    against: Annotated[Path | None, typer.Option(help="The original picture, to measure the distortion.")] = None,
    model: DecoderModel = None,
    device: Device = "auto",
) -> None:
    """Check every checksum of a .tto file and decode it; write nothing."""
    image = make_decoder(model, device)(read_bytes(file))
    line = f"{file}: ok, {image.width}x{image.height}, {image.mode}"
    if against is None:
        typer.echo(line)
        return
    from tto.image import load_picture
    from tto.metrics import ms_ssim, psnr

    decoded, original = load_picture(image), load_picture(against)
    if decoded.rgb.shape != original.rgb.shape:
        sizes = f"{original.width}x{original.height} and {image.width}x{image.height}"
        raise BadArgument(f"{against} and {file} differ in size: {sizes}")
    structure = ms_ssim(original.rgb, decoded.rgb)
    typer.echo(f"{line}, {psnr(original.rgb, decoded.rgb):.2f} dB, MS-SSIM {structure:.5f}")
