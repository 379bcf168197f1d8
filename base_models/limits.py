"""What a configuration and coding tables may be: weights files come from anywhere, and say both themselves."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from torch import Tensor

from .tables import TOTAL, IntegerTables

MAX_RATES = 65
"""A file has the quality in thousandths, in 16 bits."""
LAMBDAS = (1e-9, 1e9)
LARGEST_SCALE = 4096
"""Of σ in steps: the table of a larger one would be longer than a table can be."""
MAX_TABLES = 256
"""An index of a scale is one byte."""


def check_ranges(config, **ranges: tuple[int, int]) -> None:
    """Whether fields of a configuration are whole numbers, or as many of them as the default has, in their ranges.

    Raises `ValueError` naming the field.
    """
    defaults = {field.name: field.default for field in fields(config)}
    for name, (low, high) in ranges.items():
        check_range(name, getattr(config, name), defaults[name], low, high)


def check_range(name: str, value, default, low: int, high: int) -> None:
    """Whether `value`, the field called `name`, is a whole number, or as many of them as `default` has, in the range.

    Raises `ValueError`.
    """
    numbers = value if isinstance(value, tuple) else (value,)
    count = len(default) if isinstance(default, tuple) else 1
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if isinstance(value, tuple) != isinstance(default, tuple) or len(numbers) != count or not whole:
        raise ValueError(f"{name} is {value!r}, expected whole numbers as in {default!r}")
    if not all(low <= number <= high for number in numbers):
        raise ValueError(f"{name} is {value!r}, expected {low} to {high}")


def check_switches(config, *names: str) -> None:
    """Raises `ValueError` naming a field of a configuration that is neither true nor false."""
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ValueError(f"{name} is {getattr(config, name)!r}, expected true or false")


def check_multiple(name: str, value: int, divisor: int) -> None:
    """Raises `ValueError` unless `divisor` divides `value`, the field called `name`."""
    if value % divisor:
        raise ValueError(f"{name} is {value}, expected a multiple of {divisor}")


def check_lambdas(lambdas: tuple[float, ...]) -> None:
    """Raises `ValueError` unless there is at least one rate–distortion weight, and all are within `LAMBDAS`."""
    if not (isinstance(lambdas, tuple) and 1 <= len(lambdas) <= MAX_RATES):
        raise ValueError(f"lambdas is {lambdas!r}, expected 1 to {MAX_RATES} numbers")
    low, high = LAMBDAS
    if not all(isinstance(value, int | float) and low <= value <= high for value in lambdas):
        raise ValueError(f"lambdas is {lambdas!r}, expected numbers from {low:g} to {high:g}")


def check_coding_tables(name: str, tables: IntegerTables, count: int) -> None:
    """Whether the integer tables of the entropy model `name` can code: `count` of them, each from 0 to `TOTAL` without
    a gap. Raises `ValueError` naming what is wrong.
    """
    cdfs, lengths, offsets = tables.cdfs, tables.lengths.reshape(-1), tables.offsets
    if cdfs.ndim != 2 or not len(cdfs) == lengths.size == offsets.size == count:
        shapes = ", ".join(str(list(part.shape)) for part in (cdfs, tables.lengths, offsets))
        raise ValueError(f"{name} has coding tables of shapes {shapes}, expected {count} tables")
    if ((lengths < 3) | (lengths > cdfs.shape[1])).any():
        raise ValueError(f"{name} has a coding table of a length that cannot be")
    if (np.abs(offsets.astype(np.int64)) >= TOTAL).any():
        raise ValueError(f"{name} has a coding table that begins at a symbol that cannot be")
    rows = [row[:length].astype(np.int64) for row, length in zip(cdfs, lengths, strict=True)]
    if not all(row[0] == 0 and row[-1] == TOTAL and (np.diff(row) > 0).all() for row in rows):
        raise ValueError(f"{name} has a coding table that does not rise from 0 to {TOTAL}")


def check_scale_table(scales: Tensor) -> None:
    """Raises `ValueError` unless levels of σ are positive, ascending, not huge, and as many as a byte can name."""
    ordered = scales.dim() == 1 and 2 <= len(scales) <= MAX_TABLES and bool((scales.diff() > 0).all())
    if not (ordered and float(scales[0]) > 0 and float(scales[-1]) <= LARGEST_SCALE):
        raise ValueError(f"the levels of sigma do not ascend from a positive number to {LARGEST_SCALE} at most")
