"""tto decompress"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tto.cli.bars import Bars
from tto.cli.jobs import Record, check_jobs, end, read_input, run_jobs, write_output
from tto.cli.naming import BIN_SUFFIX, DECOMPRESSION, STREAM, Job, plan_jobs
from tto.cli.options import (
    DecoderModel,
    Device,
    Json,
    NoOverwrite,
    Output,
    Recursive,
    SkipExisting,
    Threads,
)
from tto.models import DEFAULT_MODEL, check_model

if TYPE_CHECKING:
    from PIL import Image

    from tto.codec import AnyCodec

LOG = logging.getLogger(__name__)
EPILOG = """Examples:

tto decompress photo.tto

tto decompress -r archive/ -o pictures/ --skip-existing

curl -s https://example.org/photo.tto | tto decompress - > photo.png"""
LOADING = "loading the model"
LINE = "{output}: {width}x{height}, {mode}, {seconds:.1f} s"


def decompress(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IN", help=".tto files, folders of them, or - for standard input.")
    ],
    output: Output = None,
    recursive: Recursive = False,
    skip_existing: SkipExisting = False,
    no_overwrite: NoOverwrite = False,
    model: DecoderModel = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Decompress .tto files to pictures: PNG, unless -o names another format.

    A .bin file of the published DCAE code is read, too, given its checkpoint with -m.
    """
    planned = plan_jobs(inputs, output, DECOMPRESSION, recursive)
    jobs, refused = check_jobs(planned, not no_overwrite, skip_existing, check=require_format)
    codec_for = decoder(model, device, threads)

    def work(job: Job) -> Record:
        from tto.image import encode_picture

        data = read_input(job.input)
        is_published = job.input.suffix == BIN_SUFFIX
        with bars.steps(LOADING):
            codec = codec_for(None if is_published else data)
        start = time.perf_counter()
        with bars.steps(f"decoding {job.input}"):
            image = published(job, codec, data) if is_published else codec.decompress(data)
        write_output(job.target, encode_picture(image, named(job.target)))
        return {
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "bytes": len(data),
            "bpp": 8 * len(data) / (image.width * image.height),
            "seconds": time.perf_counter() - start,
        }

    with Bars(len(jobs)) as bars:
        failed = run_jobs(jobs, work, lambda record: LINE.format(**record), as_json, bars)
    end(refused or failed)


def published(job: Job, codec: AnyCodec, data: bytes) -> Image.Image:
    """The picture in a .bin file, and a remark where that took other arithmetic than usual."""
    from tto.published_bin import decode_bin

    image, arithmetic = decode_bin(codec, data)
    if arithmetic != "float32":
        LOG.warning("%s: damaged in this machine's float32; %s could read it", job.input, arithmetic)
    return image


def named(output: Path) -> Path:
    """A path whose suffix says the format."""
    return Path("stdout" + DECOMPRESSION.default) if output == STREAM else output


def require_format(job: Job) -> None:
    """Raises `BadArgument` where the output's suffix stands for no format that is written."""
    from tto.image import writable_format

    writable_format(named(job.target))


def decoder(model: str | None, device: str, threads: int | None) -> Callable[[bytes | None], AnyCodec]:
    """A function from the bytes of a .tto file to the codec that made it, of `model` and the shipped ones; from None
    to the codec of `model`. Loads each model once. Raises `BadArgument` where there is no such model, at once.
    """
    if model is not None:
        check_model(model)

    def codec_for(data: bytes | None) -> AnyCodec:
        from tto import api
        from tto.device import use_threads

        use_threads(threads)
        if data is None:
            return api.cached_codec(model or DEFAULT_MODEL, device)
        return api.codec_for(data, () if model is None else (model,), device)

    return codec_for
