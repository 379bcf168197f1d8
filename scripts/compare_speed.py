"""Seconds to encode and decode one picture on the CPU: tto beside CompressAI's models, in one run.

    python scripts/compare_speed.py ../kodak/kodim23.png --threads 2

Medians over several runs; ratios are to the first row. CompressAI's models carry random weights (none can be assumed
to be downloaded), scaled by nothing: their transforms cost what they cost trained, their entropy coding is an
indication only. Theirs is range coding in C++ with float32 entropy models; ours is portable (float64) or native.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from compressai.entropy_models import EntropyModel
from compressai.zoo import cheng2020_attn, mbt2018_mean

from tto.codec import Codec, load_codec
from tto.entropy_coding import SymbolDecoder
from tto.image import load_picture
from tto.padding import pad_to_multiple, to_tensor


@dataclass
class Timing:
    """Seconds of each run; `coding` is the part of decoding spent in the entropy coder, where it can be told apart."""

    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    coding: list[float] = field(default_factory=list)


@contextmanager
def stopwatch(owner: type, method: str):
    """Adds up the seconds spent in `owner.method` into the yielded list's only element."""
    total, original = [0.0], getattr(owner, method)

    def timed(*args, **kwargs):
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            total[0] += time.perf_counter() - start

    with mock.patch.object(owner, method, timed):
        yield total


def measure(encode: Callable, decode: Callable, coder: tuple[type, str] | None, runs: int) -> Timing:
    timing = Timing()
    decode(encode())  # warm-up
    for _ in range(runs):
        start = time.perf_counter()
        encoded = encode()
        timing.encode.append(time.perf_counter() - start)
        with stopwatch(*(coder or (SymbolDecoder, "decode"))) as coding:
            start = time.perf_counter()
            decode(encoded)
            timing.decode.append(time.perf_counter() - start)
        if coder:
            timing.coding.append(coding[0])
    return timing


def measure_tto(codec: Codec, path: Path, quality: float, native: bool, runs: int) -> Timing:
    """Encoding here is analysis and coding; `Codec.compress` also decodes once to verify what it writes."""
    picture = load_picture(path)

    def encode() -> bytes:
        return codec.pack(picture, *codec.analyse(picture.rgb, quality), quality, native=native).data

    return measure(encode, codec.decompress, (SymbolDecoder, "decode"), runs)


@torch.inference_mode()
def measure_compressai(network: torch.nn.Module, path: Path, coder: tuple[type, str] | None, runs: int) -> Timing:
    network = network.eval()
    network.update(force=True)
    x = pad_to_multiple(to_tensor(load_picture(path).rgb), 64)
    return measure(
        lambda: network.compress(x), lambda out: network.decompress(out["strings"], out["shape"]), coder, runs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", default="dcae-small")
    parser.add_argument("--quality", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    codec = load_codec(arguments.model, "cpu")
    rows = {
        f"{arguments.model}, portable": measure_tto(codec, arguments.picture, arguments.quality, False, arguments.runs),
        f"{arguments.model}, native": measure_tto(codec, arguments.picture, arguments.quality, True, arguments.runs),
        "mbt2018-mean": measure_compressai(
            mbt2018_mean(4, pretrained=False), arguments.picture, (EntropyModel, "decompress"), arguments.runs
        ),
        "cheng2020-attn": measure_compressai(cheng2020_attn(4, pretrained=False), arguments.picture, None, 1),
    }
    base = next(iter(rows.values()))
    print("| codec | encode s | ratio | decode s | ratio | entropy coding, share of decode |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, timing in rows.items():
        encode, decode = statistics.median(timing.encode), statistics.median(timing.decode)
        share = f"{statistics.median(timing.coding) / decode:.0%}" if timing.coding else "n/a"
        ratios = encode / statistics.median(base.encode), decode / statistics.median(base.decode)
        print(f"| {name} | {encode:.2f} | {ratios[0]:.2f} | {decode:.2f} | {ratios[1]:.2f} | {share} |")


if __name__ == "__main__":
    main()
