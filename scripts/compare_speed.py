"""Seconds to encode and decode one picture on the CPU: tto beside CompressAI's models, in one run.

    python scripts/compare_speed.py ../kodak/kodim23.png --threads 2
    python scripts/compare_speed.py ../kodak/kodim23.png --threads 1 --family bmshj2018-hyperprior mbt2018-mean elic

Medians over several runs; ratios are to the first row, or with `--family` to CompressAI's own `compress` and
`decompress` with the same weights (of variable rate at `--quality`, z at a step of 1; ELIC has one size). With one
thread they are seconds of the processor, so that other work does not count. CompressAI's models carry random weights
(none can be assumed to be downloaded), for `--family` with latents of natural scales: their transforms cost what they
cost trained, their entropy coding is an indication. Theirs is range coding in C++ with float32 entropy models; ours is
portable (float64) or native.
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
from compressai.models.sensetime import Elic2022Official
from compressai.zoo import image_models

from base_models.initialization import FittedModel
from tto.codec import Codec, load_codec
from tto.entropy_coding import SymbolDecoder
from tto.image import load_picture
from tto.padding import pad_to_multiple, to_tensor

FAMILIES = [*(name for name in image_models if "relu" not in name and name != "mbt2018-vbr"), "elic"]
"""Of CompressAI that tto has, too."""
STANDARD_DEVIATION = 0.6
"""Of y and of z with random weights: about 1 bpp."""


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
        start = now()
        try:
            return original(*args, **kwargs)
        finally:
            total[0] += now() - start

    with mock.patch.object(owner, method, timed):
        yield total


def now() -> float:
    """Seconds of the processor for one thread, else of the clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def measure(encode: Callable, decode: Callable, coder: tuple[type, str] | None, runs: int) -> Timing:
    timing = Timing()
    decode(encode())  # warm-up
    for _ in range(runs):
        start = now()
        encoded = encode()
        timing.encode.append(now() - start)
        with stopwatch(*(coder or (SymbolDecoder, "decode"))) as coding:
            start = now()
            decode(encoded)
            timing.decode.append(now() - start)
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
def measure_compressai(
    network: torch.nn.Module, path: Path, coder: tuple[type, str] | None, runs: int, **rate: int
) -> Timing:
    """`rate` is the level `s` of a network of variable rate."""
    network = network.eval()
    network.update(force=True)
    x = to_tensor(pad_to_multiple(load_picture(path).rgb, 64))
    return measure(
        lambda: network.compress(x, **rate),
        lambda out: network.decompress(out["strings"], out["shape"], **rate),
        coder,
        runs,
    )


def measure_families(families: list[str], path: Path, quality: int, runs: int) -> dict[str, tuple[Timing, Timing]]:
    """Rows of each family: CompressAI's own, ours native and portable, each beside CompressAI's own."""
    rows = {}
    for family in families:
        network = with_natural_latents(random_network(family, quality), path)
        rate = {"s": quality - 1} if hasattr(network, "Gain") else {}
        theirs = measure_compressai(network, path, None, runs, **rate)
        rows[f"{family}, CompressAI"] = (theirs, theirs)
        codec = load_codec(network, "cpu")
        for native in (True, False):
            ours = measure_tto(codec, path, quality if rate else 1.0, native, runs)
            rows[f"{family}, {'native' if native else 'portable'}"] = (ours, theirs)
    return rows


def random_network(family: str, quality: int) -> torch.nn.Module:
    """CompressAI's, as it is made."""
    return Elic2022Official() if family == "elic" else image_models[family](quality, pretrained=False)


@torch.no_grad()
def with_natural_latents(network: torch.nn.Module, path: Path) -> torch.nn.Module:
    """Scales the last layers of the transforms, so that y and z are coded and not only zero, and moves σ of y there.

    A network of CompressAI or of `base_models`.
    """
    x = to_tensor(pad_to_multiple(load_picture(path).rgb, getattr(network, "stride", 64)))
    y = scaled(network.g_a, x)
    hyper = {name.rpartition(".")[2]: part for name, part in network.named_modules()}
    if "h_a" in hyper:
        scaled(hyper["h_a"], y)
    if isinstance(network, FittedModel):
        if network.z_prior is not None:
            network.set_first_guess(y.mean((0, 2, 3)), torch.full_like(y[0, :, 0, 0], STANDARD_DEVIATION))
        return network
    heads = [part for name, part in network.named_modules() if name.endswith("entropy_parameters")]
    heads = [head for head in heads or [hyper.get("h_s")] if isinstance(head, torch.nn.Sequential)]
    for head in heads:
        bias = last_convolution(head).bias
        bias[: len(bias) if len(bias) == y.shape[1] else len(bias) // 2] += STANDARD_DEVIATION
    return network


def scaled(transform: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """What a transform gives once its last convolution is scaled."""
    factor = STANDARD_DEVIATION / transform(x).std()
    for parameter in last_convolution(transform).parameters():
        parameter *= factor
    return transform(x)


def last_convolution(layers: torch.nn.Sequential) -> torch.nn.Conv2d:
    return [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--model", default="dcae-small")
    parser.add_argument("--family", nargs="+", choices=FAMILIES, help="of CompressAI, instead of the model")
    parser.add_argument("--quality", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    if arguments.family:
        rows = measure_families(arguments.family, arguments.picture, int(arguments.quality), arguments.runs)
    else:
        rows = measure_model(arguments.model, arguments.picture, arguments.quality, arguments.runs)
    print("| codec | encode s | ratio | decode s | ratio | entropy coding, share of decode |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (timing, base) in rows.items():
        encode, decode = statistics.median(timing.encode), statistics.median(timing.decode)
        share = f"{statistics.median(timing.coding) / decode:.0%}" if timing.coding else "n/a"
        ratios = encode / statistics.median(base.encode), decode / statistics.median(base.decode)
        print(f"| {name} | {encode:.2f} | {ratios[0]:.2f} | {decode:.2f} | {ratios[1]:.2f} | {share} |")


def measure_model(model: str, path: Path, quality: float, runs: int) -> dict[str, tuple[Timing, Timing]]:
    """Rows of a model of tto and of two of CompressAI's, each beside the first."""
    codec = load_codec(model, "cpu")
    rows = {
        f"{model}, portable": measure_tto(codec, path, quality, False, runs),
        f"{model}, native": measure_tto(codec, path, quality, True, runs),
        "mbt2018-mean": measure_compressai(
            image_models["mbt2018-mean"](4, pretrained=False), path, (EntropyModel, "decompress"), runs
        ),
        "cheng2020-attn": measure_compressai(image_models["cheng2020-attn"](4, pretrained=False), path, None, 1),
    }
    base = next(iter(rows.values()))
    return {name: (timing, base) for name, timing in rows.items()}


if __name__ == "__main__":
    main()
