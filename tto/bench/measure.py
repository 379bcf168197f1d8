"""Measure every series on every image, in one process or several, so that nothing is lost and nothing done
twice.

plan (images × series × qualities)  →  tasks without a finished row  →  workers  →  one writer, one row each
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tto.bench.coders import Coder, Series, scoring_version
from tto.bench.datasets import ImageSet
from tto.bench.machine import processor
from tto.bench.memory import peak_mb, reset_peak
from tto.bench.rows import Identity, Row, RowLog
from tto.bench.scores import ALWAYS, load_score
from tto.bench.text import printable
from tto.errors import TTOError
from tto.files import write_atomic
from tto.image import load_square
from tto.workers import Workforce, processes, work_through


@dataclass(frozen=True)
class Source:
    """One image of a data set. crop: side in pixels of the central square to measure, 0 for all of it."""

    dataset: str
    path: Path
    crop: int

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3]; alpha and metadata are left out, gray has three equal channels, and pictures of more bits or
        other colours are made into such as `tto.conversion` says.

        Raises `BadArgument` for an image that is smaller than the square.
        """
        return load_square(self.path, self.crop, convert=True).rgb


def sources(images: ImageSet, limit: int = 0, crop: int = 0) -> list[Source]:
    """The first `limit` images (0: all), or their central squares of `crop` pixels (0: whole images)."""
    label = f"{images.name}, centre {crop}x{crop}" if crop else images.name
    return [Source(label, path, crop) for path in images.paths[: limit or None]]


@dataclass(frozen=True)
class Task:
    """One row to measure. `file` is where the compressed image goes, within the output folder."""

    source: Source
    series: Series
    identity: Identity
    file: str


@dataclass(frozen=True)
class Machine:
    """How to measure. device: as for `pick_device`; jobs: workers at the same time; threads: of each."""

    folder: Path
    device: str = "auto"
    jobs: int = 1
    threads: int = 1


@dataclass(frozen=True)
class Failure:
    """A row that could not be measured; reason: one line."""

    label: str
    quality: float
    image: str
    reason: str


class Measured(NamedTuple):
    """`rows[i]` is what `tasks[i]` gave; `failures` are those that gave nothing."""

    tasks: list[Task]
    rows: list[Row]
    failures: list[Failure]


class NothingMeasured(TTOError):
    """Every row failed."""


def digest_of_pixels(pixels: np.ndarray) -> str:
    """16 hexadecimal digits."""
    return sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]


def plan(sources: Sequence[Source], all_series: Sequence[Series], machine: Machine) -> list[Task]:
    """Every row of a run, image by image, so that an unfinished run has measured whole images.

    Raises `BadArgument` where an image is too small.
    """
    tasks = []
    for source in sources:
        pixels, image = source.pixels(), printable(source.path.name)
        content = digest_of_pixels(pixels)
        for series in all_series:
            for quality in series.qualities:
                identity = Identity(
                    dataset=source.dataset,
                    image=image,
                    content=content,
                    width=pixels.shape[1],
                    height=pixels.shape[0],
                    codec=series.codec,
                    effort=series.effort,
                    quality=float(quality),
                    settings=series.settings,
                    version=series.version,
                    jobs=machine.jobs,
                    threads=machine.threads,
                )
                place = Path("files") / series.codec / series.effort / f"{quality:g}"
                tasks.append(Task(source, series, identity, str(place / f"{identity.key}-{image}{series.suffix}")))
    return tasks


def measure(
    tasks: Sequence[Task],
    machine: Machine,
    metrics: Sequence[str] = ALWAYS,
    on_row: Callable[[Row | Failure, bool], None] = lambda row, is_new: None,
    workforce: Workforce | None = None,
) -> Measured:
    """The rows of all tasks, in their order; finished ones come from `rows.jsonl` in the machine's folder.

    A finished row that lacks a score, or has scores of before they were computed otherwise, is only decoded. A task
    that fails does not stop the others. `on_row` hears of each row, and whether it was measured now. `workforce` are
    other workers than processes of this machine. Raises `TTOError`, after which, as after Ctrl-C or a kill, the same
    call goes on where this one stopped.
    """
    if workforce is None:
        workforce = processes(machine.jobs, machine.threads)
    with RowLog(machine.folder / "rows.jsonl") as log:
        work, rows, failures = [], dict[str, Row](), []
        for task in {task.identity.key: task for task in tasks}.values():
            known = log.finished.get(task.identity.key)
            if known and known.scoring != scoring_version():
                known = replace(known, scores={})
            if known and all(metric in known.scores for metric in metrics) and _has_file(known, machine):
                rows[known.key] = known
                on_row(known, False)
            else:
                work.append(Work(task, tuple(metrics), known))
        with closing(_measure_all(work, machine, workforce)) as outcomes:
            for outcome in outcomes:
                if isinstance(outcome, Row):
                    log.append(outcome)
                    rows[outcome.key] = outcome
                else:
                    failures.append(outcome)
                on_row(outcome, True)
        finished = [task for task in tasks if task.identity.key in rows]
        if not finished:
            raise NothingMeasured(f"nothing could be measured: {failures[0].reason}")
        return Measured(finished, [rows[task.identity.key] for task in finished], failures)


class Work(NamedTuple):
    """A task with the scores that are wanted, and its row where it has only some of them."""

    task: Task
    metrics: tuple[str, ...]
    known: Row | None


def attempt(work: Work, machine: Machine) -> Row | Failure:
    """`measure_one`, or why not."""
    try:
        return measure_one(work, machine)
    except Exception as error:  # whatever went wrong, the other rows are worth having
        identity, name = work.task.identity, "" if isinstance(error, TTOError) else f"{type(error).__name__}: "
        return Failure(identity.label, identity.quality, identity.image, printable(f"{name}{error}"))


def measure_one(work: Work, machine: Machine) -> Row:
    """Compress one image to a file, read the file back, decode it and score it; only the last where there is a row."""
    task, row = work.task, work.known
    path, original = machine.folder / task.file, task.source.pixels()
    rung = task.series.rung(task.identity.quality)
    coder = task.series.open(rung, machine.device)
    if row is None or row.file != task.file or not _has_file(row, machine):
        row = _compress(task, machine, coder, rung.at, original)
    data = path.read_bytes()
    start = time.perf_counter()
    decoded = np.asarray(coder.decode(data))
    seconds = time.perf_counter() - start if math.isnan(row.decode_seconds) else row.decode_seconds
    missing = [metric for metric in work.metrics if metric not in row.scores]
    scores = {metric: load_score(metric)(original, decoded) for metric in missing}
    return replace(row, scores={**row.scores, **scores}, scoring=scoring_version(), decode_seconds=seconds)


def _has_file(row: Row, machine: Machine) -> bool:
    path = machine.folder / row.file
    return path.is_file() and path.stat().st_size == row.bytes


def _compress(task: Task, machine: Machine, coder: Coder, quality: float, original: np.ndarray) -> Row:
    """The row of a file that was just written, without what is known after decoding."""
    path, image = machine.folder / task.file, Image.fromarray(original)
    held = reset_peak(coder.device)
    start = time.perf_counter()
    encoded = coder.encode(image, quality)
    encode_seconds = time.perf_counter() - start
    memory = peak_mb(coder.device) - held
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encoded.data)
    size = path.stat().st_size
    return Row(
        **asdict(task.identity),
        file=task.file,
        bytes=size,
        bpp=8 * size / (task.identity.width * task.identity.height),
        scores={},
        J=encoded.J,
        base_bytes=encoded.base_bytes,
        base_psnr=encoded.base_psnr,
        base_J=encoded.base_J,
        steps=encoded.steps,
        encode_seconds=encode_seconds,
        decode_seconds=math.nan,
        processor=processor(coder.device),
        peak_memory_mb=memory if math.isnan(encoded.peak_memory_mb) else encoded.peak_memory_mb,
        parameters=encoded.parameters,
    )


# --- workers ---------------------------------------------------------------------------------------


def _measure_all(work: Sequence[Work], machine: Machine, workforce: Workforce) -> Generator[Row | Failure, None, None]:
    """Rows as they are finished."""
    with closing(work_through(workforce, partial(_measuring, machine), work)) as outcomes:
        for one, outcome in outcomes:
            if isinstance(outcome, Exception):  # its workers died
                identity = one.task.identity
                yield Failure(identity.label, identity.quality, identity.image, str(outcome))
            else:
                yield outcome


def _measuring(machine: Machine) -> Callable[[Work], Row | Failure]:
    """What a worker does with each; it loads a model when the first row asks for it."""
    return partial(attempt, machine=machine)
