"""Measure every series on every image, in one process or several, so that nothing is lost and nothing done
twice.

plan (images × series × qualities)  →  tasks without a finished row  →  workers  →  one writer, one row each
"""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from tto.bench.coders import Series
from tto.bench.memory import peak_mb, reset_peak
from tto.bench.rows import Identity, Row, RowLog
from tto.errors import TTOError
from tto.files import write_atomic
from tto.image import central, load_picture
from tto.metrics import ms_ssim, ms_ssim_db, psnr
from tto.perceptual import load_distance, score_pixels


@dataclass(frozen=True)
class Source:
    """One image of a data set. crop: side in pixels of the central square to measure, 0 for all of it."""

    dataset: str
    path: Path
    crop: int

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3]; alpha and metadata are left out, gray has three equal channels."""
        return central(load_picture(self.path).rgb, self.crop)


@dataclass(frozen=True)
class Task:
    """One row to measure. `file` is where the compressed image goes, within the output folder."""

    source: Source
    series: Series
    identity: Identity
    file: str


@dataclass(frozen=True)
class Machine:
    """How to measure. threads: of each process; device: auto, cpu or cuda; jobs: processes."""

    folder: Path
    device: str = "auto"
    jobs: int = 1
    threads: int = 1


class WorkerLost(TTOError):
    """A measuring process died, most often for want of memory."""


def plan(sources: Sequence[Source], all_series: Sequence[Series], with_lpips: bool) -> list[Task]:
    """Every row of a run, image by image, so that an unfinished run has measured whole images."""
    tasks = []
    for source in sources:
        pixels = source.pixels()
        content = sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]
        for series in all_series:
            for quality in series.qualities:
                identity = Identity(
                    dataset=source.dataset,
                    image=source.path.name,
                    content=content,
                    width=pixels.shape[1],
                    height=pixels.shape[0],
                    codec=series.codec,
                    effort=series.effort,
                    quality=float(quality),
                    settings=series.settings,
                    version=series.version,
                    with_lpips=with_lpips,
                )
                place = Path("files") / series.codec / series.effort / f"{quality:g}"
                tasks.append(Task(source, series, identity, str(place / f"{source.path.name}{series.suffix}")))
    return tasks


def measure(
    tasks: Sequence[Task], machine: Machine, on_row: Callable[[Row, bool], None] = lambda row, is_new: None
) -> list[Row]:
    """The rows of all tasks, in their order; finished ones come from `rows.jsonl` in the machine's folder.

    `on_row` hears of each row, and whether it was measured now. Raises `TTOError`, after which, as after
    Ctrl-C or a kill, the same call goes on where this one stopped.
    """
    with RowLog(machine.folder / "rows.jsonl") as log:
        pending = {task.identity.key: task for task in tasks}
        for key in pending.keys() & log.finished.keys():
            del pending[key]
            on_row(log.finished[key], False)
        for row in _measure_all(list(pending.values()), machine):
            log.append(row)
            on_row(row, True)
        return [log.finished[task.identity.key] for task in tasks]


def measure_one(task: Task, machine: Machine) -> Row:
    """Compress one image to a file, read the file back, decode it and measure."""
    identity, path = task.identity, machine.folder / task.file
    coder = task.series.open(machine.device)
    original = task.source.pixels()
    image = Image.fromarray(original)
    reset_peak(task.series.device)
    start = time.perf_counter()
    encoded = coder.encode(image, identity.quality)
    encode_seconds = time.perf_counter() - start
    memory = peak_mb(task.series.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encoded.data)
    data = path.read_bytes()
    start = time.perf_counter()
    decoded = np.asarray(coder.decode(data))
    decode_seconds = time.perf_counter() - start
    similarity = ms_ssim(original, decoded)
    size = path.stat().st_size
    what = asdict(identity)
    del what["with_lpips"]
    return Row(
        key=identity.key,
        **what,
        file=task.file,
        bytes=size,
        bpp=8 * size / (identity.width * identity.height),
        psnr=psnr(original, decoded),
        ms_ssim=similarity,
        ms_ssim_db=ms_ssim_db(similarity),
        lpips=score_pixels(load_distance("lpips"), original, decoded) if identity.with_lpips else math.nan,
        J=encoded.J,
        base_bytes=encoded.base_bytes,
        base_psnr=encoded.base_psnr,
        base_J=encoded.base_J,
        steps=encoded.steps,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        peak_memory_mb=memory,
        threads=machine.threads,
    )


# --- processes -------------------------------------------------------------------------------------


def _measure_all(tasks: Sequence[Task], machine: Machine) -> Iterator[Row]:
    """Rows as they are finished."""
    if not tasks:
        return
    if machine.jobs == 1:
        _use_threads(machine.threads)
        for task in tasks:
            yield measure_one(task, machine)
        return
    context = multiprocessing.get_context("spawn")  # torch and CUDA do not survive a fork
    gpus = context.Queue()
    for job in range(machine.jobs):
        gpus.put(job)
    pool = ProcessPoolExecutor(machine.jobs, context, _start_worker, (machine.threads, gpus))
    try:
        for future in as_completed([pool.submit(measure_one, task, machine) for task in tasks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise WorkerLost(
            "a measuring process died (out of memory?); finished rows are kept, try again with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(threads: int, gpus: multiprocessing.Queue) -> None:
    """Each worker has its own GPU, in turn, and does not outlive the process that started it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _use_threads(threads)
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(gpus.get() % torch.cuda.device_count())


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
