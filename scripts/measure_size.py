"""Memory and seconds of compressing and decompressing pictures of growing size, each in a process of its own.

    python scripts/measure_size.py photograph.png --megapixels 2 12 24 --effort none --threads 1

The photograph is continued by reflections to pictures of 4:3. Memory is the largest resident set of the process, the
interpreter, PyTorch and the weights included; seconds leave out loading them. Rows appear as they are measured.
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from tto.bench.memory import peak_mb, reset_peak


@dataclass(frozen=True)
class Row:
    """Megabytes (10⁶) and seconds of processor time and by the clock."""

    width: int
    height: int
    bytes: int
    compress_mb: float
    compress_cpu: float
    compress_seconds: float
    decompress_mb: float
    decompress_cpu: float
    decompress_seconds: float


def enlarged(path: Path, megapixels: float) -> np.ndarray:
    """The photograph continued by reflections, uint8 [H, W, 3], about 4:3."""
    from tto.image import load_picture

    rgb = load_picture(path).rgb
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    width = round(megapixels * 1e6 / height)
    rows, columns = (np.pad(np.arange(n), (0, max(0, m - n)), "symmetric")[:m]
                     for n, m in zip(rgb.shape, (height, width), strict=False))  # fmt: skip
    return np.ascontiguousarray(rgb[rows][:, columns])


def measure(path: Path, megapixels: float, model: str, quality: float, options: dict, threads: int, device: str) -> Row:
    import torch

    from tto.codec import load_codec

    torch.set_num_threads(threads)
    rgb = enlarged(path, megapixels)
    codec = load_codec(model, device)
    quality = min(quality, codec.qualities)
    clocks, peaks, data = [], [], b""

    def compress() -> None:
        nonlocal data
        data = codec.compress(rgb, quality, **options).data

    for work in (compress, lambda: codec.decompress(data)):
        held = reset_peak(device)
        start, cpu = time.perf_counter(), time.process_time()
        work()
        clocks.append((time.process_time() - cpu, time.perf_counter() - start))
        peaks.append(math.nan if math.isnan(held) else peak_mb(device))
    (height, width), (packing, unpacking) = rgb.shape[:2], clocks
    return Row(width, height, len(data), peaks[0], packing[0], packing[1], peaks[1], unpacking[0], unpacking[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[2, 12, 24])
    parser.add_argument("--model", default="dcae-small")
    parser.add_argument("--quality", type=float, default=4.0)
    parser.add_argument("--effort", default="none")
    parser.add_argument("--steps", type=int, help="of refinement, instead of an effort")
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    refining = {"effort": arguments.effort} if arguments.steps is None else {"steps": arguments.steps}
    options = {**refining, "native": arguments.native}
    print("| size | MP | bytes | compress MB | CPU s | s | CPU s per MP | decompress MB | CPU s | s | CPU s per MP |")
    print("|---" + "|---:" * 10 + "|")
    for megapixels in arguments.megapixels:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            row = process.submit(
                measure, arguments.picture, megapixels, arguments.model, arguments.quality, options,
                arguments.threads, arguments.device,
            ).result()  # fmt: skip
        size = row.width * row.height / 1e6
        print(
            f"| {row.width}×{row.height} | {size:.1f} | {row.bytes} | {row.compress_mb:.0f} | {row.compress_cpu:.1f} "
            f"| {row.compress_seconds:.1f} | {row.compress_cpu / size:.2f} | {row.decompress_mb:.0f} "
            f"| {row.decompress_cpu:.1f} | {row.decompress_seconds:.1f} | {row.decompress_cpu / size:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
