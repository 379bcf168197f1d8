"""Options that several sub-commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Output = Annotated[
    str | None,  # not a Path, which forgets the slash that says folder
    typer.Option("-o", "--output", help="File to write, or folder for several; default: beside the input."),
]
Model = Annotated[str, typer.Option("-m", "--model", help="A shipped model's name, or a checkpoint's path.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object per file.")]
NoOverwrite = Annotated[bool, typer.Option("--no-overwrite", help="Refuse to write over an existing file.")]
TTOFile = Annotated[Path, typer.Argument(metavar="FILE", help="A .tto file.", show_default=False)]
