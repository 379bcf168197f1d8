"""tto compress"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tto.cli.bars import Bars
from tto.cli.jobs import (
    BIN_SUFFIX,
    PICTURE_SUFFIXES,
    TTO_SUFFIX,
    Job,
    make_folder,
    plan_jobs,
    refuse_overwriting,
    run_jobs,
    write_output,
)
from tto.cli.options import Device, Json, Model, NoOverwrite, Output
from tto.cli.refining import row_of
from tto.errors import BadArgument
from tto.interruption import Interruption
from tto.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from tto.codec import Result

DEFAULT_QUALITY = 4.0
REFINEMENT = "Refinement"
SEARCH = "Search"
LINE = "{output}: {width}x{height}, {bytes} bytes, {bpp:.3f} bpp, {psnr:.2f} dB, {seconds:.1f} s"


def compress(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Pictures, or folders of pictures.")],
    output: Output = None,
    model: Model = DEFAULT_MODEL,
    quality: Annotated[
        float | None,
        typer.Option("-q", "--quality", help="1 (small) to 8 (good), decimals allowed; default 4."),
    ] = None,
    effort: Annotated[
        str, typer.Option(help="Refinement for this picture: none, fast, balanced or best.", rich_help_panel=REFINEMENT)
    ] = "none",
    steps: Annotated[
        int | None, typer.Option(help="Refinement by a number of steps.", rich_help_panel=REFINEMENT)
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Refinement within so many seconds for the whole compression.", rich_help_panel=REFINEMENT),
    ] = None,
    target_bpp: Annotated[
        float | None, typer.Option(help="Search the quality that gives this rate, within 1 %.", rich_help_panel=SEARCH)
    ] = None,
    target_psnr: Annotated[
        float | None,
        typer.Option(help="Search the quality that gives this PSNR, within 0.05 dB.", rich_help_panel=SEARCH),
    ] = None,
    target_ssimulacra2: Annotated[
        float | None,
        typer.Option(
            help="Search the quality that looks like this (90: like the original), within 0.5.", rich_help_panel=SEARCH
        ),
    ] = None,
    target_ms_ssim: Annotated[
        float | None,
        typer.Option(help="Search the quality that gives this MS-SSIM, within 0.002.", rich_help_panel=SEARCH),
    ] = None,
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda", help="Weight of distortion in J; default: the quality's own.", rich_help_panel=REFINEMENT
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="Distortion in J: mse or ms-ssim; with a --lambda of your own lpips or dists.",
            rich_help_panel=REFINEMENT,
        ),
    ] = "mse",
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
        ),
    ] = 1,
    explain: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Draw where bits went, errors, mask, codes and dictionary as PNGs there."),
    ] = None,
    device: Device = "auto",
    native: Annotated[
        bool, typer.Option("--native", help="Faster, but only this machine is sure to decode the file.")
    ] = False,
    as_json: Json = False,
    no_overwrite: NoOverwrite = False,
) -> None:
    """Compress pictures to .tto files.

    An output -o named .bin is written as the published DCAE code writes it, given its checkpoint with -m.
    """
    jobs = plan_jobs(inputs, output, PICTURE_SUFFIXES, TTO_SUFFIX)
    targets = {
        "target_bpp": target_bpp,
        "target_psnr": target_psnr,
        "target_ssimulacra2": target_ssimulacra2,
        "target_ms_ssim": target_ms_ssim,
    }
    searching = any(target is not None for target in targets.values())
    refining = effort != "none" or bool(steps) or budget is not None
    loading = Lock()
    if explain is not None:  # what is missing is said before compressing
        import_module("matplotlib")
        make_folder(explain)

    @cache
    def loaded():
        from tto.codec import load_codec

        return load_codec(model, device)

    def codec():
        with loading:
            return loaded()

    def work(job: Job) -> dict[str, Any]:
        from tto.refine.state import Callbacks

        refuse_overwriting(job, allowed=not no_overwrite)
        if job.output.suffix == BIN_SUFFIX:
            return write(job, compress_published(job))
        chosen = min(DEFAULT_QUALITY, codec().qualities) if quality is None else quality
        with bars.steps() as show:
            result = codec().compress(
                job.input,
                chosen,
                effort=effort,
                steps=steps,
                budget=budget,
                **targets,
                metric=metric,
                roi=roi,
                native=native,
                lambda_=lambda_,
                callbacks=Callbacks(lambda progress: show(row_of(progress)), interruption.asked),
            )
        drawings = {} if explain is None else draw(job, result)
        record = write(job, result)
        for path, data in drawings.items():
            write_output(path, data)
        return record

    def draw(job: Job, result: Result) -> dict[Path, bytes]:
        from tto.explain import explain as explain_file
        from tto.image import load_picture

        drawings = explain_file(codec(), load_picture(job.input), result.data)
        return {explain / f"{job.output.stem}-{name}": data for name, data in drawings.items()}

    def compress_published(job: Job) -> Result:
        from tto.published_bin import compress_to_bin

        if refining or searching:
            raise BadArgument("published .bin files are not refined, and have the one rate of their model")
        if explain is not None:
            raise BadArgument("--explain draws .tto files, not published .bin files")
        return compress_to_bin(codec(), job.input, lambda_)

    def write(job: Job, result: Result) -> dict[str, Any]:
        write_output(job.output, result.data)
        names = ("width", "height", "bytes", "bpp", "psnr", "J", "base_bytes", "base_psnr", "base_J")
        return {name: getattr(result, name) for name in (*names, "steps", "seconds")}

    loaded()
    interruption = Interruption()
    # Where nothing is refined or searched for there is nothing to keep of a half-done work.
    with interruption.caught() if refining or searching else nullcontext(), Bars(len(jobs)) as bars:
        run_jobs(jobs, work, LINE, as_json, bars, batch, interruption)
