"""What programs share that measure for hours: their command line, and tables that a restart goes on with."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

import typer

from tto.cli import report
from tto.errors import BadArgument, TTOError
from tto.files import make_folder, read_bytes

Row = TypeVar("Row")


def run(main: Callable[..., None]) -> None:
    """A program's command line; an error that a person can mend is one line and an exit code, as of `tto`."""
    try:
        typer.run(main)
    except (TTOError, OSError) as error:
        sys.exit(report(error))


class Table(Generic[Row]):
    """Rows of a dataclass and their CSV file, which has each as soon as it is there.

    A file that exists already is gone on with, without a last line that a kill cut short. Raises `BadArgument` for one
    with other columns, or `FileError`.
    """

    def __init__(self, path: Path, kind: type[Row]):
        self.path, self.rows = path, list[Row]()
        names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
        make_folder(path.parent)
        content = read_bytes(path) if path.is_file() else b""
        if not content:
            self._append([names])
            return
        types = get_type_hints(kind)
        whole = content[: content.rfind(b"\n") + 1]
        first, *rest = csv.reader(io.StringIO(whole.decode(), newline="")) if whole else [[]]
        if first != names:
            raise BadArgument(f"{path} has other columns than {', '.join(names)}: move it away")
        os.truncate(path, len(whole))
        self.rows += [kind(*(types[name](value) for name, value in zip(names, row, strict=True))) for row in rest]

    def has(self, **figures: Any) -> bool:
        """Whether a row is there with these fields."""
        return any(all(getattr(row, name) == value for name, value in figures.items()) for row in self.rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Those of one measurement, all of them or, where it fails, none."""
        rows = list(rows)
        self._append(astuple(row) for row in rows)  # pyright: ignore[reportArgumentType]
        self.rows += rows

    def _append(self, rows: Iterable[Iterable[Any]]) -> None:
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
