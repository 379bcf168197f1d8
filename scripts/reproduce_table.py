"""Size, arithmetic and time of the models, beside what the DCAE paper's Table 1 says of its own.

    python scripts/reproduce_table.py                       all of it, weights random where none are shipped
    python scripts/reproduce_table.py dcae --no-latency     parameters and operations alone, in seconds

Operations are multiply–adds (G = 10⁹; one is two FLOPs) at 768×512. `torch.utils.flop_counter` counts
everything that multiplies, attention included. The paper's tool, as far as its figures tell, counts
convolutions and linear layers only, and a transposed convolution at its output's resolution, four times what
it takes at stride 2; the columns "as in papers" repeat that, and give its 252 (encoder) and 305 (decoder).

    encoder = g_a + h_a + walk        decoder = walk + g_s        walk = hyper-decoders, context, dictionary

Time is split by clocks around the same parts: transforms; the walk without what it calls back, in float64 as
the portable mode has it; and the range coder, which is that callback and the rest. With random weights the
range coder's work differs from a trained model's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from base_models import create_model, list_models
from tto.bench.tables import markdown, number
from tto.codec import Codec
from tto.image import Picture
from tto.models import load_model, shipped_models

HEIGHT, WIDTH = 512, 768
PAPER = {"dcae": (119.2, 252.0, 305.0)}  # Lu 2025, Table 1: parameters in millions, encoder, decoder
Result = TypeVar("Result")
TRANSFORMS = ("analysis", "hyper_analysis", "synthesis")


# --- arithmetic ------------------------------------------------------------------------------------


def parts_of(model: nn.Module, height: int, width: int) -> dict[str, Callable[[], object]]:
    """The four verbs on images of this size, without arguments; on the meta device nothing is computed."""
    device = next(model.parameters()).device
    x = torch.zeros(1, 3, height, width, device=device)
    y, z = (torch.zeros(1, *shape, device=device) for shape in model.latent_shapes(height, width))
    return {
        "analysis": lambda: model.analysis(x),
        "hyper_analysis": lambda: model.hyper_analysis(y),
        "walk": lambda: model.walk(z, 1.0, lambda i, mu, sigma: mu),
        "synthesis": lambda: model.synthesis(y),
    }


def multiply_adds(work: Callable[[], object]) -> float:
    """Multiply–adds of everything that `torch.utils.flop_counter` knows."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() / 2


def multiply_adds_as_in_papers(model: nn.Module, work: Callable[[], object]) -> float:
    """The same of convolutions and linear layers, a transposed one at its output's resolution."""
    total = 0.0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features
        else:
            taps = layer.kernel_size[0] * layer.kernel_size[1]
            total += output.numel() * taps * layer.in_channels / layer.groups

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    with ExitStack() as hooks, torch.no_grad():
        for layer in layers:
            hooks.callback(layer.register_forward_hook(count).remove)
        work()
    return total


def arithmetic(name: str, height: int = HEIGHT, width: int = WIDTH) -> dict[str, float]:
    """Millions of parameters, and 10⁹ multiply–adds of encoder and decoder in both ways of counting."""
    try:
        return arithmetic_on("meta", name, height, width)
    except NotImplementedError:  # those of variable rate find the step of z by a value
        return arithmetic_on("cpu", name, height, width)


def arithmetic_on(device: str, name: str, height: int, width: int) -> dict[str, float]:
    """The same, computed or not."""
    with torch.device(device):
        model = create_model(name).to(device).eval().requires_grad_(False)
    parts = parts_of(model, height, width)
    exact = {part: multiply_adds(work) / 1e9 for part, work in parts.items()}
    papers = {part: multiply_adds_as_in_papers(model, work) / 1e9 for part, work in parts.items()}
    figures = {"parameters": sum(p.numel() for p in model.parameters()) / 1e6}
    for suffix, counted in (("", exact), (" as in papers", papers)):
        figures[f"encoder{suffix}"] = counted["analysis"] + counted["hyper_analysis"] + counted["walk"]
        figures[f"decoder{suffix}"] = counted["walk"] + counted["synthesis"]
    return figures


# --- time ------------------------------------------------------------------------------------------


class Clock:
    """Seconds spent in each part since `restart`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def restart(self) -> None:
        self.seconds = {"transform": 0.0, "entropy model": 0.0, "called back": 0.0}

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start


def time_parts(codec: Codec, pixels: np.ndarray, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each part: {"encode": {"transform", "entropy model", "range coder"}, "decode": …}."""
    clock, network = Clock(), type(codec.model)
    quality = (1 + codec.qualities) / 2
    with ExitStack() as patches:
        for name in TRANSFORMS:
            patches.enter_context(patch.object(network, name, _timed(clock, getattr(network, name))))
        patches.enter_context(patch.object(network, "code", _timed_walk(clock, network.code)))
        picture = Picture(pixels)
        runs: dict[str, list[dict[str, float]]] = {"encode": [], "decode": []}
        for _ in range(repeats + 1):
            times, data = _split(clock, lambda: codec.pack(picture, *codec.analyse(pixels, quality), quality).data)
            runs["encode"].append(times)
            times, _ = _split(clock, lambda data=data: codec.decompress(data))
            runs["decode"].append(times)
    # The first run warms up caches and is left out.
    return {way: {part: median(run[part] for run in found[1:]) for part in found[0]} for way, found in runs.items()}


def _timed(clock: Clock, method: Callable) -> Callable:
    def timed(*arguments, **options):
        with clock.measuring("transform"):
            return method(*arguments, **options)

    return timed


def _timed_walk(clock: Clock, walk: Callable) -> Callable:
    def timed(model, z_hat, quality, code_part, *others, **options):
        def timed_part(*arguments):
            with clock.measuring("called back"):
                return code_part(*arguments)

        with clock.measuring("entropy model"):
            return walk(model, z_hat, quality, timed_part, *others, **options)

    return timed


def _split(clock: Clock, work: Callable[[], Result]) -> tuple[dict[str, float], Result]:
    """One run and its result; the range coder's part is what neither transforms nor walk took."""
    clock.restart()
    start = time.perf_counter()
    result = work()
    total = time.perf_counter() - start
    entropy_model = clock.seconds["entropy model"] - clock.seconds["called back"]
    transform = clock.seconds["transform"]
    parts = {"transform": transform, "entropy model": entropy_model, "total": total}
    return parts | {"range coder": total - transform - entropy_model}, result


def make_codec(name: str, device: str) -> Codec:
    """The shipped weights where there are some, else random ones."""
    if name in shipped_models():
        return Codec(load_model(name), device)
    torch.manual_seed(0)
    model = create_model(name).eval()
    model.update_tables()
    return Codec(model, device)


# --- tables ----------------------------------------------------------------------------------------


def arithmetic_table(names: list[str]) -> str:
    header = ["model", "parameters (M)"]
    for part in ("encoder", "decoder"):
        header += [f"{part} (G multiply–adds)", f"{part}, as in papers", f"{part}, paper"]
    cells = []
    for name in names:
        figures = arithmetic(name)
        row = [name, number(figures["parameters"], 1)]
        for i, part in enumerate(("encoder", "decoder"), 1):
            row += [number(figures[part], 1), number(figures[f"{part} as in papers"], 1)]
            row += [number(PAPER[name][i], 0) if name in PAPER else "–"]
        cells.append(row)
    return markdown(header, cells)


def latency_table(names: list[str], device: str, repeats: int) -> str:
    pixels = np.kron(
        np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8),
        np.ones((8, 8, 1), np.uint8),
    )
    header = ["model", "way", "total s", "transform s", "entropy model s", "range coder s", "range coder %"]
    cells = []
    for name in names:
        times = time_parts(make_codec(name, device), pixels, repeats)
        for way, parts in times.items():
            seconds = [parts[part] for part in ("total", "transform", "entropy model", "range coder")]
            share = 100 * parts["range coder"] / parts["total"]
            cells.append([name, way, *(number(value, 3) for value in seconds), number(share, 1)])
    return markdown(header, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=[], help="names; default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-latency", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    names = options.models or list(list_models())
    print(arithmetic_table(names))
    if not options.no_latency:
        trained = [name for name in names if name in shipped_models()]
        print(f"{WIDTH}x{HEIGHT}, {options.device}, {options.threads} threads, median of {options.repeats}; "
              f"trained weights: {', '.join(trained) or 'none'}\n")  # fmt: skip
        print(latency_table(names, options.device, options.repeats))


if __name__ == "__main__":
    main()
