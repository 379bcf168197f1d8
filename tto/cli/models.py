"""tto models: what networks there are, and published checkpoints made into tto's own files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tto.cli import EXIT_CODES
from tto.errors import BadCheckpoint
from tto.files import write_atomic
from tto.models import load_model, shipped_models, weights_folder

EPILOG = """Examples:

tto models

tto models show dcae-small

tto models convert dcae_0.013.pth.tar dcae-0.013.safetensors --lambda 0.013"""
app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True, epilog=f"{EPILOG}\n\n{EXIT_CODES}")
def models(ctx: typer.Context) -> None:
    """List, inspect and convert base models."""
    if ctx.invoked_subcommand is None:
        list_()


@app.command("list")
def list_() -> None:
    """Print the models whose weights come with tto."""
    for name in shipped_models():
        size = next(weights_folder().glob(f"{name}.*")).stat().st_size
        typer.echo(f"{name}  {size / 1e6:.1f} MB")


@app.command()
def show(
    model: Annotated[str, typer.Argument(metavar="NAME", help="A shipped model, or a checkpoint.")],
) -> None:
    """Print a model's configuration, size and fingerprint."""
    from base_models import fingerprint

    network = load_model(model)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {"fingerprint": fingerprint(network).hex(), "parameters": parameters} | asdict(network.config)
    for name, value in facts.items():
        typer.echo(f"{name:<16}{value}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A published checkpoint.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    name: Annotated[str, typer.Option(help="The network that the checkpoint is for.")] = "dcae",
    lambda_: Annotated[
        float, typer.Option("--lambda", help="Rate-distortion weight that the checkpoint was trained with.")
    ] = 0.013,
    half: Annotated[bool, typer.Option("--half", help="Store weights in 16 bits.")] = False,
) -> None:
    """Check a published checkpoint and write it as a file that -m takes."""
    import torch

    from base_models import CheckpointError, checkpoint_bytes, fingerprint, load_checkpoint

    try:
        network = load_checkpoint(checkpoint, name, lambdas=(lambda_,))
        write_atomic(out, checkpoint_bytes(network, torch.float16 if half else None))
        typer.echo(f"{out}: fingerprint {fingerprint(load_checkpoint(out)).hex()}")
    except CheckpointError as error:
        raise BadCheckpoint(str(error)) from error
