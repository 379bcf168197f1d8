"""tto models: what networks there are, and published checkpoints made into tto's own files."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tto.cli import EXIT_CODES
from tto.errors import BadArgument, BadCheckpoint
from tto.files import make_folder, require_writable, write_atomic
from tto.hub import parse_address, pulled_models
from tto.models import DEFAULT_LAMBDA, WEIGHTS_SUFFIX, checkpoint_path, load_model, shipped_models
from tto.zoo import families, find_family, load_network

EPILOG = """Examples:

tto models

tto models show dcae-small

tto models convert dcae_0.013.pth.tar dcae-0.013.safetensors --lambda 0.013

tto models pull OWNER/NAME"""
app = typer.Typer(add_completion=False)


class TrainedFor(str, Enum):
    mse = "mse"
    ms_ssim = "ms-ssim"


@app.callback(invoke_without_command=True, epilog=f"{EPILOG}\n\n{EXIT_CODES}")
def models(ctx: typer.Context) -> None:
    """List, inspect, convert and share base models."""
    if ctx.invoked_subcommand is None:
        list_()


@app.command("list")
def list_() -> None:
    """Print the models that come with tto, those that were pulled, and CompressAI's, downloaded when first used; then
    networks for checkpoints and training.
    """
    from base_models import list_models

    for name in (*shipped_models(), *pulled_models().values()):
        typer.echo(f"{name:<28}  {checkpoint_path(name).stat().st_size / 1e6:.1f} MB")
    for family in families():
        cached = family.cached()
        here = f"; here are {', '.join(map(str, cached))}" if cached else ""
        typer.echo(f"{family.name:<28}  CompressAI, qualities 1 to {family.qualities}{here}")
    trained = {*shipped_models(), *(family.name for family in families())}
    networks = ", ".join(name for name in list_models() if name not in trained)
    typer.echo(f"networks for 'tto models convert' and 'tto train': {networks}")


@app.command()
def show(
    model: Annotated[
        str, typer.Argument(metavar="NAME", help="A shipped model, a checkpoint, or one of CompressAI's.")
    ],
    quality: Annotated[int, typer.Option("-q", help="Of CompressAI's: each quality has a network.")] = 4,
) -> None:
    """Print a model's configuration, size and fingerprint."""
    from base_models import fingerprint

    family = find_family(model)
    if family is not None and not 1 <= quality <= family.qualities:
        raise BadArgument(f"quality must be between 1 and {family.qualities} for this model, got {quality}")
    network = load_model(model) if family is None else load_network(family, quality)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {"fingerprint": fingerprint(network).hex(), "parameters": parameters} | asdict(network.config)
    for name, value in facts.items():
        typer.echo(f"{name:<16}{value}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A published checkpoint.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    name: Annotated[
        str | None, typer.Option(help="The network that the checkpoint is for; found by its tensors if not given.")
    ] = None,
    lambda_: Annotated[
        float | None,
        typer.Option("--lambda", help="Weight of 255²·MSE against bits per pixel that it was trained with: 0.013."),
    ] = None,
    metric: Annotated[
        TrainedFor | None,
        typer.Option(
            help="What it was trained for; default: mse. λ of ms-ssim is 1280 times --lambda.", metavar="METRIC"
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits.")] = False,
) -> None:
    """Check a published checkpoint and write it as a file that -m takes."""
    import torch

    from base_models import CheckpointError, checkpoint_bytes, fingerprint, load_checkpoint
    from tto.side.weights import load_side_modules, save_with_side_modules

    if checkpoint.suffix == WEIGHTS_SUFFIX and not (name is lambda_ is metric is None):
        raise BadArgument(f"{checkpoint} says itself what it is: --name, --lambda and --metric are for others")
    if out.suffix != WEIGHTS_SUFFIX:
        raise BadArgument(f"{out}: expected a name that ends with {WEIGHTS_SUFFIX}")
    if out.exists() and checkpoint.exists() and out.samefile(checkpoint):
        raise BadArgument(f"{out} is the checkpoint itself: give another name")
    require_writable(out)
    make_folder(out.parent)
    try:
        network = load_checkpoint(checkpoint, name, lambdas=(DEFAULT_LAMBDA if lambda_ is None else lambda_,))
        if lambda_ is not None and network.config.lambdas != (lambda_,):
            raise BadArgument(f"{checkpoint} says its rates itself, without --lambda")
        if metric is not None:
            network.metric = metric.value
        dtype, side = torch.float16 if half else None, load_side_modules(checkpoint)
        if side is None:
            write_atomic(out, checkpoint_bytes(network, dtype))
        else:
            save_with_side_modules(network, side, out, dtype)
        typer.echo(f"{out}: fingerprint {fingerprint(load_checkpoint(out)).hex()}")
    except CheckpointError as error:
        raise BadCheckpoint(str(error)) from error


@app.command()
def pull(
    address: Annotated[str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help="A shared model.")],
) -> None:
    """Fetch a shared model, or what is new of it, so that -m hf://OWNER/NAME works without network."""
    from base_models import fingerprint
    from tto import hub

    shared = parse_address(address)
    path = hub.pull(shared)
    made = fingerprint(load_model(str(path))).hex()
    typer.echo(f"{path}: fingerprint {made}; use it with -m {shared}")


@app.command()
def push(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model, or a .safetensors file.")],
    address: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where to put it.")],
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of a 'tto bench' whose figures the card shows.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Share a model's weights on the Hugging Face hub, with a card. Log in first: hf auth login."""
    from tto import hub

    shared = parse_address(address)
    table = "" if figures is None else figures_of(model, figures)
    path = checkpoint_path(model)
    typer.echo(f"{hub.push(path, load_model(model), shared, table, private)}: use it with -m {shared}")


def figures_of(model: str, folder: Path) -> str:
    """What a run of `tto bench` measured of a model with its weights of today, in Markdown.

    Raises `BadArgument` or `FileError`.
    """
    from base_models import fingerprint
    from tto.bench.curves import mean_curves
    from tto.bench.rows import read_csv
    from tto.bench.tables import markdown, point_cells

    made = fingerprint(load_model(model)).hex()
    named = [row for row in read_csv(folder / "results.csv") if row.codec in (model, Path(model).stem)]
    rows = [row for row in named if made in row.version]
    if not rows:
        others = f" with these weights ({made})" if named else ""
        raise BadArgument(f"{folder} has no figures of {model}{others}")
    images = f"{rows[0].dataset}, {len({row.image for row in rows})} images; rates are bytes of files on disk."
    return f"{images}\n\n{markdown(*point_cells(mean_curves(rows)))}"
