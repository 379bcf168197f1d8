"""Many files at once: which outputs belong to which inputs, and working through them.

What can be refused before the work starts is refused then; a file that fails does not stop the others.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from tto.cli import EXIT_ERROR, report
from tto.cli.bars import Bars
from tto.errors import BadArgument, FileError
from tto.files import write_atomic
from tto.interruption import Interrupted, Interruption

PICTURE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
TTO_SUFFIX = ".tto"
BIN_SUFFIX = ".bin"  # of the published DCAE code


@dataclass(frozen=True)
class Job:
    input: Path
    output: Path


def plan_jobs(
    inputs: Sequence[Path], output: str | None, input_suffixes: Iterable[str], output_suffix: str
) -> list[Job]:
    """One job per input file; a folder stands for the files in it that have one of `input_suffixes`, sorted.

    Without `output`, an output lies beside its input. `output` is the file to write where there is one input
    file, and otherwise (or where it is a folder, or ends with a slash) the folder to write to.
    Raises `BadArgument` where two jobs would write one file, or a job would write over an input.
    """
    files = [file for source in inputs for file in _files_of(source, tuple(input_suffixes))]
    if output is None:
        jobs = [Job(file, file.with_suffix(output_suffix)) for file in files]
    elif _means_a_file(output) and len(inputs) == 1 and not inputs[0].is_dir():
        jobs = [Job(inputs[0], Path(output))]
    else:
        jobs = [Job(file, Path(output) / file.with_suffix(output_suffix).name) for file in files]
    _refuse_collisions(jobs)
    return jobs


def _files_of(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not source.is_dir():
        return [source]
    files = sorted(file for file in source.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise BadArgument(f"no files to work on in the folder {source}")
    return files


def _means_a_file(output: str) -> bool:
    return not output.endswith(("/", os.sep)) and not Path(output).is_dir()


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {os.path.realpath(job.input): job.input for job in jobs}
    writers: dict[str, Path] = {}
    for job in jobs:
        target = os.path.realpath(job.output)
        if target in sources:
            raise BadArgument(f"{job.output} is an input: give another name with -o")
        if target in writers:
            raise BadArgument(f"{writers[target]} and {job.input} would both be written to {job.output}")
        writers[target] = job.input


def run_jobs(
    jobs: Sequence[Job],
    work: Callable[[Job], dict[str, Any]],
    line: str,
    as_json: bool,
    bars: Bars,
    at_once: int = 1,
    interruption: Interruption | None = None,
) -> None:
    """Do `work` for each job, `at_once` of them at the same time in threads, and print what it returns: as JSON, or by
    the format string `line`, in the order of the jobs.

    A job that fails is reported in one line; then the others go on, and the program ends with exit code 2.
    Work that knows of an `interruption` ends early by itself and leaves something to be written; jobs after it are not
    begun. Raises `Interrupted`, which says how many were done.
    """
    interruption = interruption or Interruption()

    def attempt(job: Job) -> dict[str, Any] | Exception | None:
        if interruption.asked():
            return None
        try:
            if not job.input.is_file():
                raise FileError(f"cannot read {job.input}: no such file")
            return {"input": str(job.input), "output": str(job.output)} | work(job)
        except Exception as error:
            return error
        finally:
            bars.file_done()

    failed = written = 0
    try:
        with ThreadPoolExecutor(at_once) as threads:
            for job, done in zip(jobs, (map if at_once == 1 else threads.map)(attempt, jobs), strict=True):
                if isinstance(done, Exception):
                    report(done, job.input)
                    failed += 1
                elif done is not None:
                    print(to_json(done) if as_json else line.format(**done), flush=True)
                    written += 1
    except KeyboardInterrupt:
        raise Interrupted(f"{written} of {len(jobs)} written") from None
    if interruption.number is not None:
        best = ", the last with the best so far" if written else ""
        raise Interrupted(f"{written} of {len(jobs)} written{best}", interruption.number)
    if failed:
        raise typer.Exit(EXIT_ERROR)


def to_json(record: dict[str, Any]) -> str:
    """One line of JSON; numbers that JSON has no word for (an infinite PSNR) are null."""
    return json.dumps({key: None if _has_no_word(value) else value for key, value in record.items()})


def _has_no_word(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def refuse_overwriting(job: Job, allowed: bool) -> None:
    if not allowed and job.output.exists():
        raise FileError(f"{job.output} exists and --no-overwrite is given")


def write_output(path: Path, data: bytes) -> None:
    """Write a whole file, and the folder it is to lie in if there is none. Raises `FileError`."""
    make_folder(path.parent)
    write_atomic(path, data)


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there, and those above it. Raises `FileError`, also where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise FileError(f"cannot write to the folder {folder}")
