"""tto compress"""

from __future__ import annotations

from contextlib import nullcontext
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tto.cli.bars import Bars, waiting
from tto.cli.compression import Compression, drawings_checked
from tto.cli.jobs import Printing, Record, check_jobs, end, run_jobs
from tto.cli.manifest import Manifest, finished, folder_of, noting
from tto.cli.naming import COMPRESSION, plan_jobs
from tto.cli.options import (
    FILES,
    OUTPUT,
    Device,
    Effort,
    Jobs,
    Json,
    Model,
    NoOverwrite,
    Output,
    Ray,
    Recursive,
    SkipExisting,
    Threads,
)
from tto.cli.workplace import Workplace, absolute_model
from tto.files import make_folder
from tto.interruption import Interruption
from tto.models import DEFAULT_MODEL, check_model
from tto.packages import require

if TYPE_CHECKING:
    from tto.codec import AnyCodec

REFINEMENT = "Refinement"
SEARCH = "Search for the quality that gives"
EPILOG = """Examples:

tto compress photo.png -q 3 --effort fast

tto compress -r photos/ -o small/ --skip-existing --json

tto compress -r photos/ -o small/ --jobs 4 --skip-existing

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
            help="none, fast (26 steps), balanced (76), best (250) or max (392: for screens, charts, text, up to 4 "
            "megapixels); default: none, or fast where --roi or a --metric other than mse says what to refine for.",
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
        Metric | None,
        typer.Option(
            help="Distortion in J: mse (of 8-bit pixels), ms-ssim; with a --lambda of your own lpips or dists; "
            "default: what the model was trained for.",
            rich_help_panel=REFINEMENT,
            metavar="METRIC",
        ),
    ] = None,
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
    jobs: Jobs = None,
    ray: Ray = None,
) -> None:
    """Compress pictures to .tto files.

    An output -o named .bin is written as the published DCAE code writes it, given its checkpoint with -m.
    """
    workplace = Workplace(jobs, ray, threads, device)
    planned = plan_jobs(inputs, output, COMPRESSION, recursive)
    workplace.check(planned, batch)
    check_model(model)
    if explain is not None:  # what is missing is said before compressing
        require("matplotlib", "bench")
    outputs = folder_of(planned, output)

    @cache
    def compression() -> Compression:
        """Needs the model, which is not loaded where there is nothing to do."""
        codec = open_codec(model, "cpu" if workplace.is_elsewhere else device, threads)
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
            metric=None if metric is None else metric.value,
            roi=None if roi is None else load_picture(roi, convert=True),
            native=native,
            lambda_=lambda_,
        )
        fingerprint = codec.fingerprint + codec.side_coder.fingerprint
        model_here = absolute_model(model)
        return Compression(model_here, device, request, convert, explain, outputs, fingerprint, codec.trained_for)

    with Manifest(outputs, workplace.is_chosen) as manifest:
        is_done = finished(manifest, lambda: compression().making) if skip_existing else lambda job: False
        sources = [*(job.input for job in planned), *([] if roi is None else [roi])]
        check = (lambda job: None) if explain is None else drawings_checked(explain, outputs, sources, not no_overwrite)
        if skip_existing and manifest.has_entries:
            compression()  # what is wrong with it is said once, not for every output
        todo, refused = check_jobs(planned, not no_overwrite, is_done, check)
        if explain is not None:
            make_folder(explain)
        if not todo:
            return
        chosen = workplace.limited(len(todo))
        task = compression()
        interruption = Interruption()
        # Where nothing is refined or searched for, or others do it, there is nothing to keep of a half-done work.
        keeps_best = (task.request.refines or task.request.searches) and not chosen.is_elsewhere
        with interruption.caught() if keeps_best else nullcontext(), Bars(len(todo), chosen.first) as bars:
            printing = Printing(describe, as_json)
            start = task.start if chosen.is_elsewhere else partial(task.start, bars, interruption)
            with chosen.open(batch) as workforce:
                note = noting(manifest, task.making)
                failed = run_jobs(todo, start, printing, bars, workforce, interruption, before_writing=note)
    end(refused or failed)


def open_codec(model: str, device: str, threads: int | None) -> AnyCodec:
    """The codec of a model, and something to look at while it is loaded."""
    with waiting(f"loading {model}"):
        from tto.api import cached_codec
        from tto.device import use_threads

        use_threads(threads)
        return cached_codec(model, device)


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
