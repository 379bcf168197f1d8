"""Working through many files: what can be refused is refused first, and a file that fails does not stop the others."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import typer

from tto.cli import EXIT_ERROR, report
from tto.cli.bars import Bars
from tto.cli.log import is_quiet
from tto.cli.naming import STREAM, Job
from tto.errors import BadArgument, FileError, TTOError
from tto.files import make_folder, read_bytes, require_writable, write_atomic
from tto.interruption import Interrupted, Interruption

LOG = logging.getLogger(__name__)
Record = dict[str, Any]


def check_jobs(
    jobs: Sequence[Job],
    overwrite: bool = True,
    skip_existing: bool = False,
    check: Callable[[Job], None] = lambda job: None,
) -> tuple[list[Job], bool]:
    """The jobs that can be done, and whether others were refused, each in one line, also where `check` refuses it.

    With `skip_existing` those whose output is there are left out; without `overwrite` they are refused.
    Raises `typer.Exit` where nothing is left of jobs that were refused.
    """
    possible, refused, skipped = [], False, 0
    for job in jobs:
        try:
            if skip_existing and job.target.exists():
                skipped += 1
                continue
            _check(job, overwrite)
            check(job)
            possible.append(job)
        except TTOError as error:
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


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], Record],
    describe: Callable[[Record], str],
    as_json: bool,
    bars: Bars,
    at_once: int = 1,
    interruption: Interruption | None = None,
    done_word: str = "written",
) -> bool:
    """Do `work` for each job, `at_once` of them at the same time in threads, and print what it returns, as JSON or as
    `describe` says it, in the order of the jobs. Where standard output is a job's, that is on stderr.

    A job that fails is reported in one line; then the others go on. Returns whether one did.
    Work that knows of an `interruption` ends early by itself and leaves something to be written; jobs after it are not
    begun. Raises `Interrupted`, which says how many were done.
    """
    interruption = interruption or Interruption()
    stream = sys.stderr if any(job.output == STREAM for job in jobs) else None

    def attempt(job: Job) -> Record | Exception | None:
        if interruption.asked():
            return None
        try:
            output = {} if job.output is None else {"output": str(job.output)}
            return {"input": str(job.input)} | output | work(job)
        except Exception as error:
            return error
        finally:
            bars.file_done()

    failed = done = 0
    try:
        with ThreadPoolExecutor(at_once) as threads:
            for job, record in zip(jobs, (map if at_once == 1 else threads.map)(attempt, jobs), strict=True):
                if isinstance(record, Exception):
                    report(record, job.input)
                    failed += 1
                elif record is not None:
                    if as_json or not is_quiet():
                        print(to_json(record) if as_json else describe(record), file=stream, flush=True)
                    done += 1
    except KeyboardInterrupt:
        raise Interrupted(f"{done} of {len(jobs)} {done_word}") from None
    if interruption.number is not None:
        best = ", the last with the best so far" if done else ""
        raise Interrupted(f"{done} of {len(jobs)} {done_word}{best}", interruption.number)
    return failed > 0


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


def write_output(path: Path, data: bytes) -> None:
    """Write a whole file, and the folder it is to lie in if there is none; or standard output. Raises `FileError`."""
    if path == STREAM:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if not path.exists():
        make_folder(path.parent)
    write_atomic(path, data)
