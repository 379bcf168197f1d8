"""Cost of one refinement step of a network: CPU seconds, arithmetic, memory.

    python scripts/measure_step.py dcae --size 256
    python scripts/measure_step.py dcae-small --size 768 --height 512

The network is untrained, which costs what a trained one costs. Seconds are those of the process, so with one thread
they hold on a busy machine, too. The floor is the time of the step's multiplications at the rate of a large matrix
product in the same precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from base_models import create_model
from tto.bench.memory import peak_mb
from tto.device import descends_in_bfloat16
from tto.refine.distortion import SquaredError
from tto.refine.plan import Plan
from tto.refine.presets import FAST
from tto.refine.problem import Problem
from tto.refine.state import Callbacks, State

MATRIX = 1536


def measure(
    network: Annotated[str, typer.Argument(help="Name of a base model.")],
    size: Annotated[int, typer.Option(help="Width of the picture, a multiple of 64.")] = 256,
    height: Annotated[int | None, typer.Option(help="A multiple of 64; default: as the width.")] = None,
    steps: int = 3,
    threads: int = 1,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = create_model(network).eval().requires_grad_(False)
    model.update_tables()
    height = height or size
    picture = np.random.default_rng(0).integers(0, 256, (height, size, 3), np.uint8)
    reduced = descends_in_bfloat16(torch.device("cpu"))
    lowered = model.lowered(torch.bfloat16) if reduced else None
    problem = Problem(model, 1.0, 0.01, height, size, SquaredError(picture), bfloat16=reduced, lowered=lowered)
    x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        y = model.analysis(x)
        z = model.hyper_analysis(y)
    state = State(problem, y.clone(), z.clone(), 128, Plan((FAST,)).budget, Callbacks())
    phase = FAST[0]
    y, z = state.y.requires_grad_(True), state.z.requires_grad_(True)

    def step() -> None:
        phase.differentiate(state, 0.0, y, z)

    step()
    peak = peak_mb("cpu")
    seconds = seconds_of(step, steps)
    with FlopCounterMode(display=False) as counter:
        step()
    dtype = torch.bfloat16 if reduced else torch.float32
    matrix = torch.randn(MATRIX, MATRIX).to(dtype)
    rate = 2 * MATRIX**3 / seconds_of(lambda: matrix @ matrix, steps)
    floor = counter.get_total_flops() / rate
    name = str(dtype).removeprefix("torch.")
    print(f"{network} {size}x{height} {name}: {seconds:.3f} s a step, {1 / seconds:.2f} steps/s")
    print(f"peak memory of the process {peak:.0f} MB")
    print(f"{counter.get_total_flops() / 1e9:.1f} GFLOP a step, matrix product {rate / 1e9:.0f} GFLOP/s")
    print(f"floor {floor:.3f} s, {100 * floor / seconds:.0f} % of the step")


def seconds_of(work: Callable[[], object], times: int) -> float:
    """Median CPU seconds of the process."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return median(taken)


if __name__ == "__main__":
    typer.run(measure)
