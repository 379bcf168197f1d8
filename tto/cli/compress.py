"""tto compress"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from tto.cli.jobs import (
    PICTURE_SUFFIXES,
    TTO_SUFFIX,
    Job,
    plan_jobs,
    refuse_overwriting,
    run_jobs,
    write_output,
)
from tto.cli.options import Device, Json, Model, NoOverwrite, Output
from tto.models import DEFAULT_MODEL

DEFAULT_QUALITY = 4.0
LINE = "{output}: {width}x{height}, {bytes} bytes, {bpp:.3f} bpp, {psnr:.2f} dB, {seconds:.1f} s"


def compress(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Pictures, or folders of pictures.")],
    output: Output = None,
    model: Model = DEFAULT_MODEL,
    quality: Annotated[
        float | None,
        typer.Option("-q", "--quality", help="1 (small) to 8 (good), decimals allowed; default 4."),
    ] = None,
    lambda_: Annotated[
        float | None, typer.Option("--lambda", help="Weight of distortion in J; default: the quality's own.")
    ] = None,
    device: Device = "auto",
    native: Annotated[
        bool, typer.Option("--native", help="Faster, but only this machine is sure to decode the file.")
    ] = False,
    as_json: Json = False,
    no_overwrite: NoOverwrite = False,
) -> None:
    """Compress pictures to .tto files."""
    jobs = plan_jobs(inputs, output, PICTURE_SUFFIXES, TTO_SUFFIX)

    @cache
    def codec():
        from tto.codec import load_codec

        return load_codec(model, device)

    def work(job: Job) -> dict[str, Any]:
        refuse_overwriting(job, allowed=not no_overwrite)
        chosen = min(DEFAULT_QUALITY, codec().qualities) if quality is None else quality
        result = codec().compress(job.input, chosen, native=native, lambda_=lambda_)
        write_output(job.output, result.data)
        names = ("width", "height", "bytes", "bpp", "psnr", "J", "base_bytes", "base_psnr", "base_J")
        return {name: getattr(result, name) for name in (*names, "steps", "seconds")}

    run_jobs(jobs, work, LINE, as_json)
