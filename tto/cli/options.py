"""Options that several sub-commands share, each declared once.

`tto bench` has --jobs, --ray and --threads of its own: they share out measurements, and there is no manifest.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from tto.cli.log import set_level

FILES = "Files"
MACHINE = "Machine"
OUTPUT = "Output"


class Effort(str, Enum):
    none = "none"
    fast = "fast"
    balanced = "balanced"
    best = "best"
    max = "max"


Output = Annotated[
    str | None,  # not a Path, which forgets the slash that says folder
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        help="File to write, folder for several, or - for standard output; default: beside the input.",
        rich_help_panel=FILES,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "-m", "--model", metavar="MODEL", help="A model's name (tto models), a checkpoint's path, or hf://OWNER/NAME."
    ),
]
DecoderModel = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="MODEL", help="Checkpoint that made the file, if no shipped model did."),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE", help="Where to compute: auto, cpu, cuda, cuda:1, mps or xpu.", rich_help_panel=MACHINE
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Threads on the CPU, of each worker; default: PyTorch's own, with --jobs its share of the cores, with "
        "--ray 1.",
        rich_help_panel=MACHINE,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Share the files out among so many processes. What dies is replaced; with outputs, tto-manifest.jsonl "
        "beside them tells what each was made from, and --skip-existing goes on where a run ended.",
        rich_help_panel=MACHINE,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="The same on a Ray cluster (HOST:PORT), or the one that runs here, or else one of this machine: an actor "
        "for each GPU, or for each --threads cores.",
        rich_help_panel=MACHINE,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per file, one to a line.", rich_help_panel=OUTPUT)
]
Recursive = Annotated[
    bool, typer.Option("-r", "--recursive", help="Folders with all that is below them.", rich_help_panel=FILES)
]
NoOverwrite = Annotated[
    bool, typer.Option("--no-overwrite", help="Refuse to write over an existing file.", rich_help_panel=FILES)
]
SkipExisting = Annotated[
    bool,
    typer.Option(
        "--skip-existing",
        help="Leave out inputs whose output exists, unless tto-manifest.jsonl tells that it was made otherwise.",
        rich_help_panel=FILES,
    ),
]
TTOFiles = Annotated[
    list[Path],
    typer.Argument(metavar="IN", help=".tto files, folders of them, or - for standard input.", show_default=False),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v", "--verbose", count=True, help="Say more on stderr; -vv still more.", show_default=False,
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="No lines for files and no remarks: errors and JSON only.", rich_help_panel=OUTPUT),
]


def with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    """The command with -v beside its own options, and --quiet where it prints a record for each file."""
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)

    @wraps(function)
    def command(*args: Any, verbose: int, quiet: bool = False, **options: Any) -> None:
        set_level(verbose, quiet)
        function(*args, **options)

    common: dict[str, tuple[Any, Any]] = {"verbose": (Verbose, 0)}
    if "as_json" in signature.parameters:
        common["quiet"] = (Quiet, False)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *(each.replace(annotation=hints[name], kind=keyword) for name, each in signature.parameters.items()),
        *(
            inspect.Parameter(name, keyword, default=default, annotation=kind)
            for name, (kind, default) in common.items()
        ),
    ]
    setattr(command, "__signature__", inspect.Signature(parameters))  # noqa: B010 (no attribute that types know)
    command.__annotations__ = hints | {name: kind for name, (kind, _) in common.items()}
    del command.__wrapped__  # whose types would be looked at instead
    return command
