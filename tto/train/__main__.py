"""`python -m tto.train` and `accelerate launch -m tto.train`: the same as `tto train`."""

from __future__ import annotations

import sys

import typer

from tto.errors import TTOError
from tto.train.cli import train


def main() -> None:
    """Runs the command; an error a person can act on is one line and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(train)
    try:
        app()
    except TTOError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
