"""tto decompress"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tto.cli.bars import Bars
from tto.cli.jobs import Made, Parcel, Printing, check_jobs, end, run_jobs
from tto.cli.manifest import Making, Manifest, finished, folder_of, noting
from tto.cli.naming import BIN_SUFFIX, DECOMPRESSION, STREAM, Job, plan_jobs
from tto.cli.options import (
    DecoderModel,
    Device,
    Jobs,
    Json,
    NoOverwrite,
    Output,
    Ray,
    Recursive,
    SkipExisting,
    Threads,
)
from tto.cli.workplace import Workplace, absolute_model
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
    jobs: Jobs = None,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Decompress .tto files to pictures: PNG, unless -o names another format.

    A .bin file of the published DCAE code is read, too, given its checkpoint with -m.
    """
    workplace = Workplace(jobs, ray, threads, device)
    planned = plan_jobs(inputs, output, DECOMPRESSION, recursive)
    workplace.check(planned)
    if model is not None:
        check_model(model)
    task, making = Decompression(model and absolute_model(model), device), Making("", {"model": model})
    with Manifest(folder_of(planned, output), workplace.is_chosen) as manifest:
        is_done = finished(manifest, lambda: making) if skip_existing else lambda job: False
        todo, refused = check_jobs(planned, not no_overwrite, is_done, check=require_format)
        if not todo:
            return
        chosen = workplace.limited(len(todo))
        with Bars(len(todo), chosen.first) as bars:
            printing = Printing(LINE.format_map, as_json)
            start = task.start if chosen.is_elsewhere else partial(task.start, bars)
            with chosen.open() as workforce:
                failed = run_jobs(todo, start, printing, bars, workforce, before_writing=noting(manifest, making))
    end(refused or failed)


@dataclass(frozen=True)
class Decompression:
    """How files are decompressed, here or in a worker. model: as for `decoder`."""

    model: str | None
    device: str

    def start(self, bars: Bars | None = None) -> Callable[[Parcel], Made]:
        """What decompresses one file, and says meanwhile what it is at; models are loaded when a file asks for one."""
        return partial(self._decompress, decoder(self.model, self.device), bars or Bars(0))

    def _decompress(self, codec_for: Callable[[bytes | None], AnyCodec], bars: Bars, parcel: Parcel) -> Made:
        from tto.image import encode_picture

        job, data = parcel.job, parcel.data
        is_published = job.input.suffix.lower() == BIN_SUFFIX
        with bars.steps(LOADING):
            codec = codec_for(None if is_published else data)
        start = time.perf_counter()
        with bars.steps(f"decoding {job.input}"):
            image = published(job, codec, data) if is_published else codec.decompress(data)
        picture = encode_picture(image, named(job.target))
        record = {
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "bytes": len(data),
            "bpp": 8 * len(data) / (image.width * image.height),
            "seconds": time.perf_counter() - start,
        }
        return Made(record, {job.target: picture})


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


def decoder(model: str | None, device: str) -> Callable[[bytes | None], AnyCodec]:
    """A function from the bytes of a .tto file to the codec that made it, of `model` and the shipped ones; from None
    to the codec of `model`. Loads each model once.
    """

    def codec_for(data: bytes | None) -> AnyCodec:
        from tto import api

        if data is None:
            return api.cached_codec(model or DEFAULT_MODEL, device)
        return api.codec_for(data, () if model is None else (model,), device)

    return codec_for
