"""tto compress"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tto.cli.bars import Bars, waiting
from tto.cli.jobs import Record, check_jobs, end, read_input, run_jobs, write_output
from tto.cli.naming import BIN_SUFFIX, COMPRESSION, STREAM, Job, plan_jobs
from tto.cli.options import (
    FILES,
    OUTPUT,
    Device,
    Effort,
    Json,
    Model,
    NoOverwrite,
    Output,
    Recursive,
    SkipExisting,
    Threads,
)
from tto.cli.refining import row_of
from tto.errors import BadArgument
from tto.files import make_folder
from tto.interruption import Interruption
from tto.models import DEFAULT_MODEL, check_model
from tto.packages import require

if TYPE_CHECKING:
    from tto.codec import AnyCodec, Result
    from tto.image import Picture

LOG = logging.getLogger(__name__)
REFINEMENT = "Refinement"
SEARCH = "Search for the quality that gives"
EPILOG = """Examples:

tto compress photo.png -q 3 --effort fast

tto compress -r photos/ -o small/ --skip-existing --json

convert in.psd png:- | tto compress - -o out.tto

tto compress photo.png --target-bpp 0.25 --roi face.png"""


class Metric(str, Enum):
    mse = "mse"
    ms_ssim = "ms-ssim"
    lpips = "lpips"
    dists = "dists"


def compress(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="IN", help="Pictures, folders of pictures, or - for standard input.", show_default=False
        ),
    ],
    output: Output = None,
    recursive: Recursive = False,
    skip_existing: SkipExisting = False,
    no_overwrite: NoOverwrite = False,
    convert: Annotated[
        bool,
        typer.Option(
            "--convert",
            help="Take pictures of 16 bits (8 are kept), CMYK and Lab (made sRGB, by their ICC profile), too.",
            rich_help_panel=FILES,
        ),
    ] = False,
    model: Model = DEFAULT_MODEL,
    quality: Annotated[
        float | None,
        typer.Option("-q", "--quality", help="1 (small) to 8 (good), decimals allowed; default 4.", metavar="Q"),
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Float32: only the machine that encoded is sure to decode the file.")
    ] = False,
    effort: Annotated[
        Effort | None,
        typer.Option(
            help="none, fast (24 steps), balanced (74), best (250) or max (372: for screens, charts, text); default: "
            "none, or fast where --roi or --metric says what to refine for.",
            rich_help_panel=REFINEMENT,
            metavar="EFFORT",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="A number of steps instead.", rich_help_panel=REFINEMENT, metavar="N")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="As much as can be done in so many seconds, the whole compression.",
            rich_help_panel=REFINEMENT,
            metavar="SECONDS",
        ),
    ] = None,
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="Weight of distortion in J = bits per pixel + λ·distortion, which refinement lowers; default: the "
            "quality's own (the shipped model's: 0.001 at 1, twice as much each further, 0.128 at 8).",
            rich_help_panel=REFINEMENT,
            metavar="λ",
        ),
    ] = None,
    metric: Annotated[
        Metric,
        typer.Option(
            help="Distortion in J: mse (of 8-bit pixels), ms-ssim; with a --lambda of your own lpips or dists.",
            rich_help_panel=REFINEMENT,
            metavar="METRIC",
        ),
    ] = Metric.mse,
    roi: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="Picture of the same size whose brightness weighs distortion; black weighs nothing.",
            rich_help_panel=REFINEMENT,
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1,
            help="Refine so many pictures at the same time; those of one size share their steps on a GPU.",
            rich_help_panel=REFINEMENT,
            metavar="N",
        ),
    ] = 1,
    target_bpp: Annotated[
        float | None, typer.Option(help="Bits per pixel of the file, within 1 %.", rich_help_panel=SEARCH, metavar="R")
    ] = None,
    target_psnr: Annotated[
        float | None, typer.Option(help="PSNR, within 0.05 dB.", rich_help_panel=SEARCH, metavar="DB")
    ] = None,
    target_ssimulacra2: Annotated[
        float | None,
        typer.Option(
            help="SSIMULACRA 2 (90: looks like the original), within 0.5.", rich_help_panel=SEARCH, metavar="S"
        ),
    ] = None,
    target_ms_ssim: Annotated[
        float | None, typer.Option(help="MS-SSIM, within 0.002.", rich_help_panel=SEARCH, metavar="M")
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Draw there where bits went, errors, and what travels beside the latents, as PNGs.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Compress pictures to .tto files.

    An output -o named .bin is written as the published DCAE code writes it, given its checkpoint with -m.
    """
    planned = plan_jobs(inputs, output, COMPRESSION, recursive)
    check_model(model)
    jobs, refused = check_jobs(planned, not no_overwrite, skip_existing)
    if explain is not None:  # what is missing is said before compressing
        require("matplotlib", "bench")
        make_folder(explain)
    if not jobs:
        return
    codec = open_codec(model, device, threads)
    from tto.image import load_picture
    from tto.request import Request

    request = Request(
        codec.default_quality if quality is None else codec.checked_quality(quality),
        effort=None if effort is None else effort.value,
        steps=steps,
        budget=budget,
        target_bpp=target_bpp,
        target_psnr=target_psnr,
        target_ssimulacra2=target_ssimulacra2,
        target_ms_ssim=target_ms_ssim,
        metric=metric.value,
        roi=None if roi is None else load_picture(roi, convert=True),
        native=native,
        lambda_=lambda_,
    )

    def work(job: Job) -> Record:
        is_file = job.input != STREAM and job.input.is_file()
        picture = load_picture(job.input if is_file else read_input(job.input), convert)
        result = compressed(job, picture) if job.target.suffix != BIN_SUFFIX else published(picture)
        drawings = {} if explain is None else draw(explain, job, picture, result)
        write_output(job.target, result.data)
        for path, data in drawings.items():
            write_output(path, data)
        if budget is not None and result.steps == 0:
            LOG.warning("%s: %g s are too short to refine it, so it is not refined", job.input, budget)
        return record_of(result) | measured(picture, result) | ({"drawings": [*map(str, drawings)]} if drawings else {})

    def compressed(job: Job, picture: Picture) -> Result:
        from tto.refine.state import Callbacks

        with bars.steps(f"coding {job.input}") as show:
            callbacks = Callbacks(lambda progress: show(row_of(progress)), interruption.asked)
            return codec.compress(picture, callbacks=callbacks, **vars(request))

    def published(picture: Picture) -> Result:
        from tto.published_bin import compress_to_bin

        if request.refines or request.searches:
            raise BadArgument("published .bin files are not refined, and have the one rate of their model")
        if explain is not None:
            raise BadArgument("--explain draws .tto files, not published .bin files")
        return compress_to_bin(codec, picture, lambda_)

    def draw(folder: Path, job: Job, picture: Picture, result: Result) -> dict[Path, bytes]:
        from tto.explain import explain as explain_file

        drawings = explain_file(codec, picture, result.data)
        stem = "stdout" if job.output == STREAM else job.target.stem
        return {folder / f"{stem}-{name}": data for name, data in drawings.items()}

    def measured(picture: Picture, result: Result) -> Record:
        """What was aimed at, where that is not PSNR."""
        from tto.metrics import ms_ssim

        record = {} if target_ssimulacra2 is None else {"ssimulacra2": result.reached}
        if metric == Metric.ms_ssim or target_ms_ssim is not None:
            record["ms_ssim"] = ms_ssim(picture.rgb, load_picture(result.image).rgb)
        return record

    interruption = Interruption()
    # Where nothing is refined or searched for there is nothing to keep of a half-done work.
    with interruption.caught() if request.refines or request.searches else nullcontext(), Bars(len(jobs)) as bars:
        failed = run_jobs(jobs, work, describe, as_json, bars, batch, interruption)
    end(refused or failed)


def open_codec(model: str, device: str, threads: int | None) -> AnyCodec:
    """The codec of a model, and something to look at while it is loaded."""
    with waiting(f"loading {model}"):
        from tto.api import cached_codec
        from tto.device import use_threads

        use_threads(threads)
        return cached_codec(model, device)


def record_of(result: Result) -> Record:
    names = ("width", "height", "bytes", "bpp", "psnr", "J", "base_bytes", "base_psnr", "base_J", "steps", "seconds")
    return {name: getattr(result, name) for name in names}


def describe(record: Record) -> str:
    """One line, and one for each drawing."""
    line = "{output}: {width}x{height}, {bytes} bytes, {bpp:.3f} bpp, {psnr:.2f} dB".format(**record)
    if "ms_ssim" in record:
        line += f", MS-SSIM {record['ms_ssim']:.4f}"
    if "ssimulacra2" in record:
        line += f", SSIMULACRA2 {record['ssimulacra2']:.1f}"
    if record["steps"]:
        line += f", J {100 * (record['J'] / record['base_J'] - 1):+.1f} %"
    return "\n".join([f"{line}, {record['seconds']:.1f} s", *(f"  {path}" for path in record.get("drawings", ()))])
