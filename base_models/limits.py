"""What a configuration and coding tables may be: weights files come from anywhere, and say both themselves."""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor, nn

WHOLE = 1 << 16
"""Frequencies of a coding table are 16-bit fractions."""
MAX_RATES = 65
"""A file has the quality in thousandths, in 16 bits."""
MAX_TABLES = 256
"""An index of a scale is one byte."""


def check_ranges(config, **ranges: tuple[int, int]) -> None:
    """Whether fields of a configuration are whole numbers, or as many of them as the default has, in their ranges.

    Raises `ValueError` naming the field.
    """
    defaults = {field.name: field.default for field in fields(config)}
    for name, (low, high) in ranges.items():
        value, default = getattr(config, name), defaults[name]
        numbers = value if isinstance(value, tuple) else (value,)
        count = len(default) if isinstance(default, tuple) else 1
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        if isinstance(value, tuple) != isinstance(default, tuple) or len(numbers) != count or not whole:
            raise ValueError(f"{name} is {value!r}, expected whole numbers as in {default!r}")
        if not all(low <= number <= high for number in numbers):
            raise ValueError(f"{name} is {value!r}, expected {low} to {high}")


def check_multiple(name: str, value: int, divisor: int) -> None:
    """Raises `ValueError` unless `divisor` divides `value`, the field called `name`."""
    if value % divisor:
        raise ValueError(f"{name} is {value}, expected a multiple of {divisor}")


def check_lambdas(lambdas: tuple[float, ...]) -> None:
    """Raises `ValueError` unless there is at least one rate–distortion weight, all are positive, and none is huge."""
    if not (isinstance(lambdas, tuple) and 1 <= len(lambdas) <= MAX_RATES):
        raise ValueError(f"lambdas is {lambdas!r}, expected 1 to {MAX_RATES} numbers")
    if not all(isinstance(value, int | float) and value > 0 and math.isfinite(value) for value in lambdas):
        raise ValueError(f"lambdas is {lambdas!r}, expected positive numbers")


def check_coding_tables(name: str, entropy_model: nn.Module, tables: int) -> None:
    """Whether an entropy model's integer tables can code: `tables` of them, each from 0 to 65 536 without a gap.

    Raises `ValueError` naming what is wrong.
    """
    cdfs, lengths, offsets = entropy_model.quantized_cdf, entropy_model.cdf_length, entropy_model.offset
    if cdfs.dim() != 2 or not len(cdfs) == lengths.numel() == offsets.numel() == tables:
        shapes = ", ".join(str(list(part.shape)) for part in (cdfs, lengths, offsets))
        raise ValueError(f"{name} has coding tables of shapes {shapes}, expected {tables} tables")
    lengths = lengths.reshape(-1, 1)
    if bool(((lengths < 3) | (lengths > cdfs.shape[1])).any()):
        raise ValueError(f"{name} has a coding table of a length that cannot be")
    if bool((offsets.abs() >= WHOLE).any()):
        raise ValueError(f"{name} has a coding table that begins at a symbol that cannot be")
    if not _rise_to_the_whole(cdfs, lengths):
        raise ValueError(f"{name} has a coding table that does not rise from 0 to {WHOLE}")


def _rise_to_the_whole(cdfs: Tensor, lengths: Tensor) -> bool:
    """Whether the first `lengths` [T, 1] entries of each row [T, longest] ascend from 0 to 65 536."""
    cdfs = cdfs.to(torch.int64)
    ascends = cdfs.diff(dim=1) > 0
    beyond = torch.arange(1, cdfs.shape[1], device=cdfs.device) >= lengths
    last = cdfs.gather(1, lengths.to(torch.int64) - 1)
    return bool((ascends | beyond).all()) and bool((cdfs[:, 0] == 0).all()) and bool((last == WHOLE).all())


def check_scale_table(scales: Tensor) -> None:
    """Raises `ValueError` unless levels of σ are positive, finite, ascending, and as many as a byte can name."""
    ordered = scales.dim() == 1 and 2 <= len(scales) <= MAX_TABLES and bool((scales.diff() > 0).all())
    if not (ordered and float(scales[0]) > 0 and bool(scales.isfinite().all())):
        raise ValueError("the levels of sigma do not ascend from a positive number")
