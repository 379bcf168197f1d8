"""The command `tto`: its sub-commands, loaded when called, and the one place where errors are printed.

A sub-command raises a `TTOError`; here it becomes one line on stderr and exit code 2. Nothing in this module
imports torch, so that `tto info` starts at once.
"""

from __future__ import annotations

import io
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from tto.cli.log import logging_to_stderr, print_line, set_level
from tto.cli.options import OUTPUT, Verbose, with_common_options
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
EXIT_CODES = (
    "Exit codes: 0 done; 2 an error that you can mend, in one line; 130 after Ctrl-C (143 after SIGTERM); 1 a bug."
)
ADDRESS = re.compile(r"auto|local|(ray://)?(\[[\da-fA-F:]+\]|[\w.-]+):\d+")
"""Of a Ray cluster."""
EXIT_ERROR = 2
EXIT_BUG = 1
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
"""As of a program that SIGPIPE ends."""


class _PipeClosed(Exception):
    """Whoever read the output has gone. (Typer would end with its own code.)"""


class Command(TyperCommand):
    """Takes `--ray` without its address, too: what follows is one only if it looks so."""

    def parse_args(self, ctx, args):
        options = args[: args.index("--")] if "--" in args else args
        for place, option in enumerate(options):
            if option == "--ray" and not ADDRESS.fullmatch(next(iter(options[place + 1 :]), "")):
                args[place] = "--ray="
        return super().parse_args(ctx, args)


class LazyGroup(TyperGroup):
    """Imports a sub-command only when it is asked for."""

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, cmd_name):
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name].partition(":")
        module = import_module(module_name)
        target = getattr(module, attribute)
        if not isinstance(target, typer.Typer):
            function, target = target, typer.Typer(add_completion=False)
            epilog = "\n\n".join(filter(None, (getattr(module, "EPILOG", None), EXIT_CODES)))
            target.command(cmd_name, cls=Command, epilog=epilog)(with_common_options(function))
        command = typer.main.get_command(target)
        command.name = cmd_name
        return command

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error


app = typer.Typer(
    cls=LazyGroup, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from tto import __version__

        typer.echo(f"tto {__version__}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    epilog=EXIT_CODES,
)
def tto(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    verbose: Verbose = 0,
    quiet: Annotated[
        bool,
        typer.Option(
            "-q", "--quiet", help="No lines for files and no remarks: errors and JSON only.", rich_help_panel=OUTPUT
        ),
    ] = False,
) -> None:
    """Learned image compression, optimized for each image."""
    set_level(verbose, quiet)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and leave the process: 0, 2 for an error a person can mend, 130 for Ctrl-C."""
    _settle_streams()
    _settle_threads()
    with logging_to_stderr():
        code = _run(args)
    sys.exit(code)


def _settle_streams() -> None:
    """Standard streams that are closed lead nowhere; a name that cannot be printed is escaped."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 until the process ends
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _settle_threads() -> None:
    """PyTorch's threads wait for each other without sleeping for a moment only, before PyTorch is loaded: where another
    process has one of the cores, the others would else wait for most of the time (13 times as long on two cores).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _run(args: list[str] | None) -> int:
    """The exit code."""
    try:
        code = app(args=args, prog_name="tto", standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        return code or 0
    except (KeyboardInterrupt, typer.Abort):
        print_line("interrupted")
        return EXIT_INTERRUPTED
    except _PipeClosed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be written there
        return EXIT_PIPE
    except Exception as error:
        return report(error)


def report(error: Exception, about: Path | None = None) -> int:
    """Print one line for an error that ends the program, or its work on one file, and say the exit code."""
    if isinstance(error, Interrupted):
        print_line(str(error))
        return error.exit_code
    if isinstance(error, TTOError):
        text = str(error)
        if about is not None and f"{about}:" not in text and not text.startswith(f"{about} "):
            text = f"{_shown(about)}: {text}"
        print_line(text)
    elif (format_message := getattr(error, "format_message", None)) is not None:  # typer: a wrong option, …
        command = getattr(getattr(error, "ctx", None), "command_path", "tto")
        message = format_message().replace("Value error, ", "")
        print_line(f"{message} (see {command} --help)")
    elif isinstance(error, ModuleNotFoundError):
        print_line(f"the package {error.name} is not installed: pip install 'tto[bench,train]'")
    elif isinstance(error, OSError) and error.filename is not None:
        print_line(f"{os.fsdecode(error.filename)}: {error.strerror}")
    elif _ran_out(error):
        print_line("out of memory" if about is None else f"{_shown(about)}: out of memory")
    elif isinstance(error, OSError):
        print_line(str(error))
    else:
        if os.environ.get("TTO_TRACEBACK"):
            raise error
        print_line(f"internal error: {type(error).__name__}: {error} (TTO_TRACEBACK=1 shows where)")
        return EXIT_BUG
    return EXIT_ERROR


def _ran_out(error: Exception) -> bool:
    """Whether it is for want of memory; PyTorch's own words are looked for only where it is loaded."""
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from tto.memory import ran_out

    return ran_out(error)


def _shown(path: Path) -> str:
    return "standard input" if str(path) == "-" else str(path)
