"""The measurements: one row per image, codec, effort and quality, kept in a file that only grows."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tto.bench.scores import METRICS
from tto.bench.text import printable, shield, unshield
from tto.errors import BadArgument, FileError
from tto.files import read_bytes, write_atomic
from tto.journal import Journal

_PARSERS = {"str": lambda value: printable(str(value)), "int": int, "float": float}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What was measured, and how: the same identity always gives the same bytes, and on one processor seconds that
    compare.

    image: file name; content: digest of its pixels; effort: empty for classical codecs; settings: what else decides the
    bytes; version: of the program and its weights; jobs: processes at the same time, each with so many threads.
    """

    dataset: str
    image: str
    content: str
    width: int
    height: int
    codec: str
    effort: str
    quality: float
    settings: str
    version: str
    jobs: int
    threads: int

    @property
    def key(self) -> str:
        """16 hexadecimal digits that stand for all of the above."""
        named = {field.name: getattr(self, field.name) for field in fields(Identity)}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """Name of the curve that it belongs to."""
        return series_label(self.codec, self.effort)


@dataclass(frozen=True, kw_only=True)
class Row(Identity):
    """One measured file. Numbers that do not exist (J of a JPEG) are `nan`.

    bytes: size of the file on disk; bpp: 8·bytes / (width·height).
    scores: of the decoded 8-bit RGB pixels, by names of `tto.bench.scores`: columns of their own in files.
    scoring: digest of what computed them, empty in files of before.
    J: bpp + λ·D, D 255²·MSE or what the network was trained for; the base_… figures are those of the same codec without
    refinement.
    encode_seconds, decode_seconds: wall clock. The encoder of a learned codec also decodes its own file, and that is
    counted.
    processor: what they were measured on, a GPU where it computes there; empty in files of before.
    peak_memory_mb: largest resident memory while encoding: of a program of its own, and what encoding added to this
    process (or on a GPU to what is allocated there) for a codec that runs within it: its weights were there before.
    parameters: of a learned codec's base model, 0 for others.
    """

    file: str
    bytes: int
    bpp: float
    scores: Mapping[str, float]
    scoring: str = ""
    J: float
    base_bytes: float
    base_psnr: float
    base_J: float
    steps: int
    encode_seconds: float
    decode_seconds: float
    processor: str = ""
    peak_memory_mb: float
    parameters: int

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Row:
        """A row from text or JSON values; empty and null numbers are `nan`, unknown columns are ignored, and control
        characters in text are replaced.

        Raises KeyError or ValueError where a column is missing or is no number.
        """
        scores = {name: _parse(record[name], "float") for name in METRICS if name in record}
        record = {"scoring": "", "processor": "", **record}
        return cls(**{name: _parse(record[name], kind) for name, kind in _COLUMNS.items()}, scores=scores)


_COLUMNS = {field.name: str(field.type) for field in fields(Row) if field.name != "scores"}


def series_label(codec: str, effort: str) -> str:
    """`dcae-small (fast)`, or the bare name for a codec that knows no effort."""
    return f"{codec} ({effort})" if effort else codec


def to_json_value(value: Any) -> Any:
    """The value itself, None for `nan`, and the text "inf" for infinity: JSON has no words for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def row_to_json(row: Row) -> dict[str, Any]:
    """Its columns, those of its scores last."""
    record = {name: getattr(row, name) for name in _COLUMNS} | dict(row.scores)
    return {name: to_json_value(value) for name, value in record.items()}


class RowLog:
    """Rows as lines of a `Journal`: every row is on the disk before the next is measured. A context manager."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises `FileError` if it is in use or is not a file of rows."""
        self.path = path
        self._journal = Journal(path, "give another folder with --out")
        try:
            self.finished = self._read()
        except BaseException:
            self._journal.__exit__()
            raise

    def __enter__(self) -> RowLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._journal.__exit__(*exception)

    def append(self, row: Row) -> None:
        """Write one row and wait until the disk has it."""
        self._journal.append(row_to_json(row))
        self.finished[row.key] = row

    def _read(self) -> dict[str, Row]:
        """Finished rows by key."""
        try:
            rows = [Row.from_record(record) for record in self._journal.read()]
        except (ValueError, KeyError, TypeError) as error:
            hint = "or was made by another version of tto; give another folder with --out"
            raise FileError(f"{self.path} is not a file of measurements, {hint}") from error
        return {row.key: row for row in rows}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """All rows with a header line; `nan` is an empty cell, and no text begins as a formula does."""
    scores = [name for name in METRICS if any(name in row.scores for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_COLUMNS, *scores], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        record = row_to_json(row)
        writer.writerow({key: shield(cell) if _COLUMNS.get(key) == "str" else cell for key, cell in record.items()})
    write_atomic(path, text.getvalue().encode())


def read_csv(path: Path) -> list[Row]:
    """Rows of a file that `write_csv` made. Raises `FileError` or `BadArgument`."""
    try:
        records = csv.DictReader(io.StringIO(read_bytes(path).decode()))
        return [
            Row.from_record({key: unshield(cell) if _COLUMNS.get(key) == "str" else cell for key, cell in one.items()})
            for one in records
        ]
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        reason = printable(str(error))
        raise BadArgument(f"{path} is not a table of 'tto bench' (results.csv): {reason}") from error


def _parse(value: Any, kind: str) -> Any:
    if kind == "float" and value in (None, ""):
        return math.nan
    return _PARSERS[kind](value)
