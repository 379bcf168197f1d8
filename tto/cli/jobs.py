"""Working through many files: what can be refused is refused first, and a file that fails does not stop the others."""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import typer

from tto.cli import EXIT_ERROR, report
from tto.cli.bars import Bars
from tto.cli.log import is_quiet
from tto.cli.naming import STREAM, Job
from tto.errors import BadArgument, FileError, TTOError
from tto.files import make_folder, read_bytes, require_writable, write_atomic
from tto.interruption import Interrupted, Interruption, Terminated
from tto.workers import Here, Start, Workforce, work_through

LOG = logging.getLogger(__name__)
Record = dict[str, Any]


def check_jobs(
    jobs: Sequence[Job],
    overwrite: bool = True,
    is_done: Callable[[Job], bool] = lambda job: False,
    check: Callable[[Job], None] = lambda job: None,
) -> tuple[list[Job], bool]:
    """The jobs that can be done, and whether others were refused, each in one line, also where `check` refuses it.

    Those that are done are left out; without `overwrite` those whose output is there are refused.
    Raises `typer.Exit` where nothing is left of jobs that were refused.
    """
    possible, refused, skipped = [], False, 0
    for job in jobs:
        try:
            if is_done(job):
                skipped += 1
                continue
            _check(job, overwrite)
            check(job)
            possible.append(job)
        except (TTOError, OSError) as error:  # OSError: of a path through a folder that may not be read
            report(error, job.input)
            refused = True
    if skipped:
        LOG.warning("%d of %d exist and are skipped", skipped, len(jobs))
    if refused and not possible:
        raise typer.Exit(EXIT_ERROR)
    return possible, refused


def _check(job: Job, overwrite: bool) -> None:
    if job.input == STREAM:
        if sys.stdin.isatty():
            raise BadArgument("standard input is a terminal: give a file")
    elif not job.input.exists():
        raise FileError(f"cannot read {job.input}: no such file")
    elif job.input.is_dir():
        raise FileError(f"cannot read {job.input}: a folder")
    if job.output == STREAM:
        if sys.stdout.isatty():
            raise BadArgument("standard output is a terminal: say with -o where the output goes")
    elif job.output is not None:
        if not overwrite and job.output.exists():
            raise FileError(f"{job.output} exists and --no-overwrite is given")
        require_writable(job.output)


@dataclass(frozen=True)
class Parcel:
    """A job as a worker gets it: with the content of its input, and path and content of the original to compare with.
    modified_ns: when the input was last changed, as it was before its content was read.

    Workers read and write no pictures, so they may be on other machines.
    """

    index: int
    job: Job
    data: bytes = field(repr=False)
    original: tuple[Path, bytes] | None = field(default=None, repr=False)
    modified_ns: int = 0


@dataclass(frozen=True)
class Made:
    """What work on a parcel gives: the record to print, and files to be written, the job's output first."""

    record: Record
    files: Mapping[Path, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Printing:
    """How records are told: as JSON or as `describe` says it. done_word: for those that were done; stream: what was
    standard output when this was made.
    """

    describe: Callable[[Record], str]
    as_json: bool = False
    done_word: str = "written"
    stream: TextIO = field(default_factory=lambda: sys.stdout)


def read_parcel(index: int, job: Job) -> Parcel:
    modified_ns = modified(job.input)
    return Parcel(index, job, read_input(job.input), modified_ns=modified_ns)


def run_jobs(
    jobs: Sequence[Job],
    start: Start[Parcel, Made],
    printing: Printing,
    bars: Bars,
    workforce: Workforce = Here(),  # noqa: B008 (immutable)
    interruption: Interruption | None = None,
    read: Callable[[int, Job], Parcel] = read_parcel,
    before_writing: Callable[[Parcel, Made], None] = lambda parcel, made: None,
) -> bool:
    """Do the work of `start` (see `tto.workers`) for each job, write its files and print its record, in the order of
    the jobs. Where standard output is a job's, that is on stderr.

    A job that fails is reported in one line; then the others go on. Returns whether one did.
    Work that knows of an `interruption` ends early by itself and leaves something to be written; jobs after it are not
    begun. Raises `Interrupted`, which says how many were done.
    """
    interruption = interruption or Interruption()
    rows = _Rows(jobs, printing)

    def parcels() -> Iterator[Parcel]:
        for index, job in enumerate(jobs):
            if interruption.asked():
                return
            try:
                yield read(index, job)
            except Exception as error:
                rows.add(index, error)
                bars.file_done()

    try:
        with closing(work_through(workforce, start, parcels())) as outcomes:
            for parcel, outcome in outcomes:
                if isinstance(outcome, Made):
                    outcome = _written(outcome, partial(before_writing, parcel, outcome))
                rows.add(parcel.index, outcome)
                bars.file_done()
    except KeyboardInterrupt as stop:
        rows.print_rest()
        number = Terminated.number if isinstance(stop, Terminated) else signal.SIGINT
        raise Interrupted(f"{rows.done} of {len(jobs)} {printing.done_word}", number) from None
    if interruption.number is not None:
        rows.print_rest()
        best = ", the last with the best so far" if rows.done else ""
        raise Interrupted(f"{rows.done} of {len(jobs)} {printing.done_word}{best}", interruption.number)
    return rows.failed


def _written(made: Made, before: Callable[[], None]) -> Record | Exception:
    try:
        before()
        for path, data in made.files.items():
            write_output(path, data)
    except BrokenPipeError:  # whoever read standard output has gone
        raise
    except Exception as error:
        return error
    return made.record


class _Rows:
    """Prints what becomes of jobs, each when those before it have been printed."""

    def __init__(self, jobs: Sequence[Job], printing: Printing):
        self._jobs, self._printing = jobs, printing
        self._stream = sys.stderr if any(job.output == STREAM for job in jobs) else printing.stream
        self._waiting: dict[int, Record | Exception] = {}
        self._next = self.done = 0
        self.failed = False

    def add(self, index: int, outcome: Record | Exception) -> None:
        self._waiting[index] = outcome
        while self._next in self._waiting:
            self._print(self._next, self._waiting.pop(self._next))
            self._next += 1

    def print_rest(self) -> None:
        """Also those before which one will never come."""
        for index in sorted(self._waiting):
            self._print(index, self._waiting.pop(index))

    def _print(self, index: int, outcome: Record | Exception) -> None:
        job = self._jobs[index]
        if isinstance(outcome, Exception):
            report(outcome, job.input)
            self.failed = True
            return
        self.done += 1
        if self._printing.as_json or not is_quiet():
            output = {} if job.output is None else {"output": str(job.output)}
            record = {"input": str(job.input)} | output | outcome
            text = to_json(record) if self._printing.as_json else self._printing.describe(record)
            print(text, file=self._stream, flush=True)


def end(failed: bool) -> None:
    """Leave with exit code 2 where something failed."""
    if failed:
        raise typer.Exit(EXIT_ERROR)


def to_json(record: Record) -> str:
    """One line of JSON; numbers that JSON has no word for (an infinite PSNR) are null."""
    return json.dumps({key: None if _has_no_word(value) else value for key, value in record.items()})


def _has_no_word(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def read_input(path: Path) -> bytes:
    """What a file or standard input holds. Raises `FileError`."""
    return sys.stdin.buffer.read() if path == STREAM else read_bytes(path)


def modified(path: Path) -> int:
    """When a file was last changed, in nanoseconds; 0 of what has no such time."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def write_output(path: Path, data: bytes) -> None:
    """Write a whole file, and the folder it is to lie in if there is none; or standard output. Raises `FileError`."""
    if path == STREAM:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if not path.exists():
        make_folder(path.parent)
    write_atomic(path, data)
