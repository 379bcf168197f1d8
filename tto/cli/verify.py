"""tto verify: does a file decode, and to what?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from tto.cli.bars import Bars
from tto.cli.decompress import LOADING, decoder
from tto.cli.jobs import Record, check_jobs, end, read_input, run_jobs
from tto.cli.naming import TTO_SUFFIX, Job, find_files
from tto.cli.options import FILES, DecoderModel, Device, Json, Recursive, Threads, TTOFiles
from tto.errors import BadArgument, FileError
from tto.formats import PICTURE_SUFFIXES

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
    as_json: Json = False,
) -> None:
    """Check every checksum of .tto files and decode them; write nothing. Exit code 2 where one is damaged."""
    found = find_files(inputs, (TTO_SUFFIX,), recursive)
    if against is not None and len(found) > 1 and not against.is_dir():
        raise BadArgument(f"there are {len(found)} files: --against takes a folder then")
    places = {each.file: each.place for each in found}
    jobs, refused = check_jobs([Job(file) for file in places])
    codec_for = decoder(model, device, threads)

    def work(job: Job) -> Record:
        data = read_input(job.input)
        with bars.steps(LOADING):
            codec = codec_for(data)
        with bars.steps(f"decoding {job.input}"):
            image = codec.decompress(data)
        record = {"width": image.width, "height": image.height, "mode": image.mode, "bytes": len(data)}
        return record if against is None else record | measure(image, original_of(places[job.input], against))

    with Bars(len(jobs)) as bars:
        failed = run_jobs(jobs, work, describe, as_json, bars, done_word="verified")
    end(refused or failed)


def original_of(place: Path, against: Path) -> Path:
    """The picture that belongs to a .tto file at `place` below its folder. Raises `FileError`."""
    if not against.is_dir():
        return against
    stem = against / place.with_suffix("")
    for candidate in (stem, *(stem.with_name(stem.name + suffix) for suffix in PICTURE_SUFFIXES)):
        if candidate.is_file():
            return candidate
    raise FileError(f"no original of {place} in {against}")


def measure(decoded, original: Path) -> Record:
    """PSNR in dB and MS-SSIM of a decoded PIL image. Raises `BadArgument` where the sizes differ."""
    from tto.image import load_picture
    from tto.metrics import ms_ssim, psnr

    first, second = load_picture(original, convert=True), load_picture(decoded)
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
