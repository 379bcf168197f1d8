"""tto decompress"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tto.cli.bars import Bars
from tto.cli.jobs import BIN_SUFFIX, TTO_SUFFIX, Job, plan_jobs, refuse_overwriting, run_jobs, write_output
from tto.cli.options import Device, Json, NoOverwrite, Output
from tto.container import read
from tto.errors import WrongModel
from tto.files import read_bytes
from tto.models import DEFAULT_MODEL, shipped_models

if TYPE_CHECKING:
    from PIL import Image

DecoderModel = Annotated[
    str | None,
    typer.Option("-m", "--model", help="Checkpoint that made the file, if no shipped model did."),
]
LINE = "{output}: {width}x{height}, {mode}, {seconds:.1f} s"


def decompress(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help=".tto files, or folders of them.")],
    output: Output = None,
    model: DecoderModel = None,
    device: Device = "auto",
    as_json: Json = False,
    no_overwrite: NoOverwrite = False,
) -> None:
    """Decompress .tto files to pictures, PNG unless -o names another format.

    A .bin file of the published DCAE code is read, too, given its checkpoint with -m.
    """
    jobs = plan_jobs(inputs, output, (TTO_SUFFIX,), ".png")
    decode = make_decoder(model, device)

    def decode_published(path: Path, data: bytes) -> Image.Image:
        from tto.codec import load_codec
        from tto.published_bin import decode_bin

        image, arithmetic = decode_bin(load_codec(model or DEFAULT_MODEL, device), data)
        if arithmetic != "float32":
            typer.echo(f"tto: {path}: damaged in this machine's float32; {arithmetic} could read it", err=True)
        return image

    def work(job: Job) -> dict[str, Any]:
        from tto.image import encode_picture, writable_format

        start = time.perf_counter()
        refuse_overwriting(job, allowed=not no_overwrite)
        writable_format(job.output)  # or no decoding
        data = read_bytes(job.input)
        image = decode_published(job.input, data) if job.input.suffix == BIN_SUFFIX else decode(data)
        write_output(job.output, encode_picture(image, job.output))
        return {
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "bytes": len(data),
            "bpp": 8 * len(data) / (image.width * image.height),
            "seconds": time.perf_counter() - start,
        }

    with Bars(len(jobs)) as bars:
        run_jobs(jobs, work, LINE, as_json, bars)


def make_decoder(model: str | None, device: str) -> Callable[[bytes], Image.Image]:
    """A function from the bytes of a .tto file to its picture, which loads each model once.

    Without `model` the shipped model that made the file is used; `WrongModel` where there is none.
    """

    @cache
    def codec(name: str):
        from tto.codec import load_codec

        return load_codec(name, device)

    def decode(data: bytes) -> Image.Image:
        header = read(data).header  # a damaged file is refused before a network is loaded
        if model is not None:
            return codec(model).decompress(data)
        for name in shipped_models():
            if codec(name).fingerprint == header.fingerprint:
                return codec(name).decompress(data)
        made_by = f"(fingerprint {header.fingerprint.hex()})"
        raise WrongModel(f"no shipped model made this file {made_by}: give its checkpoint with -m")

    return decode
