"""tto verify: does a file decode, and to what?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tto.cli.bars import Bars
from tto.cli.decompress import LOADING, decoder
from tto.cli.jobs import Made, Parcel, Printing, Record, check_jobs, end, read_input, run_jobs
from tto.cli.naming import TTO_SUFFIX, Job, find_files
from tto.cli.options import FILES, DecoderModel, Device, Jobs, Json, Ray, Recursive, Threads, TTOFiles
from tto.cli.workplace import Workplace, absolute_model
from tto.errors import BadArgument, FileError, TTOError
from tto.files import read_bytes
from tto.formats import PICTURE_SUFFIXES
from tto.models import check_model

if TYPE_CHECKING:
    from PIL import Image

    from tto.codec import AnyCodec

EPILOG = """Examples:

tto verify photo.tto --against photo.png

tto verify -r archive/ --json"""


def verify(
    inputs: TTOFiles,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="The original, to measure the distortion; or the folder of originals, which have the same names.",
            rich_help_panel=FILES,
        ),
    ] = None,
    recursive: Recursive = False,
    model: DecoderModel = None,
    device: Device = "auto",
    threads: Threads = None,
    jobs: Jobs = None,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Check every checksum of .tto files and decode them; write nothing. Exit code 2 where one is damaged."""
    workplace = Workplace(jobs, ray, threads, device)
    found = find_files(inputs, (TTO_SUFFIX,), recursive)
    planned = [Job(each.file) for each in found]
    workplace.check(planned)
    if model is not None:
        check_model(model)
    if against is not None and len(found) > 1 and not against.is_dir():
        raise BadArgument(f"there are {len(found)} files: --against takes a folder then")
    places = {each.file: each.place for each in found}
    todo, refused = check_jobs(planned)
    task = Verification(model and absolute_model(model), device)

    def read(index: int, job: Job) -> Parcel:
        data = read_input(job.input)
        original = None if against is None else original_of(places[job.input], against)
        return Parcel(index, job, data, None if original is None else (original, read_bytes(original)))

    chosen = workplace.limited(len(todo))
    with Bars(len(todo), chosen.first) as bars:
        printing = Printing(describe, as_json, "verified")
        start = task.start if chosen.is_elsewhere else partial(task.start, bars)
        with chosen.open() as workforce:
            failed = run_jobs(todo, start, printing, bars, workforce, read=read)
    end(refused or failed)


@dataclass(frozen=True)
class Verification:
    """How files are verified, here or in a worker. model: as for `decoder`."""

    model: str | None
    device: str

    def start(self, bars: Bars | None = None) -> Callable[[Parcel], Made]:
        """What decodes one file and measures it; models are loaded when a file asks for one."""
        return partial(self._verify, decoder(self.model, self.device), bars or Bars(0))

    def _verify(self, codec_for: Callable[[bytes | None], AnyCodec], bars: Bars, parcel: Parcel) -> Made:
        with bars.steps(LOADING):
            codec = codec_for(parcel.data)
        with bars.steps(f"decoding {parcel.job.input}"):
            image = codec.decompress(parcel.data)
        record = {"width": image.width, "height": image.height, "mode": image.mode, "bytes": len(parcel.data)}
        return Made(record if parcel.original is None else record | measure(image, *parcel.original))


def original_of(place: Path, against: Path) -> Path:
    """The picture that belongs to a .tto file at `place` below its folder. Raises `FileError`."""
    if not against.is_dir():
        return against
    stem = against / place.with_suffix("")
    if stem.is_file():
        return stem
    beside = sorted(stem.parent.iterdir()) if stem.parent.is_dir() else []
    for suffix in PICTURE_SUFFIXES:
        for candidate in beside:
            if candidate.stem == stem.name and candidate.suffix.lower() == suffix and candidate.is_file():
                return candidate
    raise FileError(f"no original of {place} in {against}")


def measure(decoded: Image.Image, original: Path, content: bytes) -> Record:
    """PSNR in dB and MS-SSIM of a decoded picture. Raises `BadArgument` where the sizes differ."""
    from tto.image import load_picture
    from tto.metrics import ms_ssim, psnr

    try:
        first, second = load_picture(content, convert=True), load_picture(decoded)
    except TTOError as error:
        raise type(error)(f"{original}: {error}") from error
    if first.rgb.shape != second.rgb.shape:
        sizes = f"{first.width}x{first.height} and {second.width}x{second.height}"
        raise BadArgument(f"{original} and the decoded picture differ in size: {sizes}")
    return {
        "against": str(original),
        "psnr": psnr(first.rgb, second.rgb),
        "ms_ssim": ms_ssim(first.rgb, second.rgb),
    }


def describe(record: Record) -> str:
    line = "{input}: ok, {width}x{height}, {mode}".format(**record)
    if "psnr" in record:
        line += f", {record['psnr']:.2f} dB"
        line += "" if math.isnan(record["ms_ssim"]) else f", MS-SSIM {record['ms_ssim']:.5f}"
    return line
