"""The command `tto`: its sub-commands, loaded when called, and the one place where errors are printed.

A sub-command raises a `TTOError`; here it becomes one line on stderr and exit code 2. Nothing in this module
imports torch, so that `tto info` starts at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from tto.errors import TTOError
from tto.interruption import Interrupted

COMMANDS = {
    "compress": "tto.cli.compress:compress",
    "decompress": "tto.cli.decompress:decompress",
    "info": "tto.cli.info:info",
    "verify": "tto.cli.verify:verify",
    "models": "tto.cli.models:app",
    "bench": "tto.bench.cli:bench",
    "train": "tto.train.cli:train",
    "demo": "tto.cli.demo:demo",
}
EXIT_ERROR = 2
EXIT_BUG = 1
EXIT_INTERRUPTED = 130


class LazyGroup(TyperGroup):
    """Imports a sub-command only when it is asked for."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, cmd_name):
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        target = getattr(import_module(module), attribute)
        if not isinstance(target, typer.Typer):
            function, target = target, typer.Typer(add_completion=False)
            target.command(cmd_name)(function)
        command = typer.main.get_command(target)
        command.name = cmd_name
        return command


app = typer.Typer(cls=LazyGroup, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from tto import __version__

        typer.echo(f"tto {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def tto(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learned image compression, optimized for each image."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and leave the process: 0, 2 for an error a person can mend, 130 for Ctrl-C."""
    # CompressAI still uses torch.jit.script, which torch says on every import.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
    try:
        code = app(args=args, prog_name="tto", standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        print_error("interrupted")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be written there
        code = EXIT_ERROR
    except Exception as error:
        code = report(error)
    sys.exit(code or 0)


def report(error: Exception, about: Path | None = None) -> int:
    """Print one line for an error that ends the program, or its work on one file, and say the exit code."""
    if isinstance(error, Interrupted):
        print_error(str(error))
        return error.exit_code
    if isinstance(error, TTOError):
        unnamed = about is not None and str(about) not in str(error)
        print_error(f"{about}: {error}" if unnamed else str(error))
    elif hasattr(error, "format_message"):  # typer: a wrong option, a missing argument
        print_error(f"{error.format_message()} (see tto --help)")
    elif isinstance(error, ModuleNotFoundError):
        print_error(f"the package {error.name} is not installed: pip install 'tto[bench,train]'")
    elif isinstance(error, (MemoryError, OSError)):
        print_error(str(error) or "out of memory")
    else:
        if os.environ.get("TTO_TRACEBACK"):
            raise error
        print_error(f"internal error: {type(error).__name__}: {error} (TTO_TRACEBACK=1 shows where)")
        return EXIT_BUG
    return EXIT_ERROR


def print_error(message: str) -> None:
    print("tto: " + " ".join(message.split()), file=sys.stderr)
