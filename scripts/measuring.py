"""What programs share that measure for hours: their pictures, and tables that a restart goes on with."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Generic, TypeVar, get_type_hints

from tto.errors import BadArgument
from tto.image import Picture, central, load_picture

Row = TypeVar("Row")


def square(path: Path, side: int) -> Picture:
    """The middle `side` by `side` of a picture, all of it for 0. Raises `BadArgument` for a picture that is smaller."""
    picture = load_picture(path)
    if min(picture.height, picture.width) < side:
        raise BadArgument(f"{path} has {picture.width}x{picture.height} pixels: no square of {side}")
    return Picture(central(picture.rgb, side), picture.grayscale)


class Table(Generic[Row]):
    """Rows of a dataclass and their CSV file, which has each as soon as it is there.

    A file that exists already is gone on with. Raises `BadArgument` for one with other columns.
    """

    def __init__(self, path: Path, kind: type[Row]):
        self.path, self.rows = path, list[Row]()
        names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append([names])
            return
        types = get_type_hints(kind)
        with open(path, newline="", encoding="utf-8") as file:
            first, *rest = csv.reader(file)
        if first != names:
            raise BadArgument(f"{path} has other columns than {', '.join(names)}: move it away")
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
