"""Samples per second of training steps, in one run on one machine, as a table for BENCHMARKS.md.

    python scripts/compare_training_speed.py --steps 5 [--images FOLDER] [--compile] [--full]

Rows: the data loader alone; `dcae-small` and (with --full) the published DCAE in 32-bit and bf16, channels last or
not, with --compile also compiled (channels last); and the step of CompressAI's example training script
(`examples/train.py`) on `mbt2018-mean`. Every step is forward, backward, clipping and the updates of Adam and of the
quantiles, on the same crops.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from compressai.losses import RateDistortionLoss
from compressai.optimizers import net_aux_optimizer
from compressai.zoo import mbt2018_mean

from base_models import create_model
from tto.train.crops import Batch, CropPlan, CropSampler
from tto.train.images import ImageStore, find_images
from tto.train.objective import RateDistortion
from tto.train.optimizers import QuantileOptimizer, create_optimizer, freeze_all_but, without_quantiles
from tto.train.recipe import LossSettings, OptimizerSettings
from tto.train.step import StepContext, accumulate_gradients


def our_step(model_name: str, precision: str, channels_last: bool, compiled: bool, batch: Batch) -> Callable[[], None]:
    """One training step of a base model, ready to be called again and again."""
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision="no" if precision == "fp32" else precision)
    torch.manual_seed(0)
    model = create_model(model_name).to(accelerator.device).train()
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    names = without_quantiles(model)
    freeze_all_but(model, names)
    optimizer = accelerator.prepare_optimizer(create_optimizer(model, names, OptimizerSettings()))
    quantiles = QuantileOptimizer(model, 1e-3)
    context = StepContext(
        accelerator=accelerator,
        network=torch.compile(model) if compiled else model,
        parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        optimizer=optimizer,
        objective=RateDistortion(LossSettings(), model),
        clip_norm=1.0,
        micro_batch=len(batch.images),
        seed=(0, 0),
    )
    format = torch.channels_last if channels_last else torch.contiguous_format
    batch = Batch(batch.images.to(accelerator.device).contiguous(memory_format=format), batch.position)

    def step() -> None:
        accumulate_gradients(context, batch, 0)
        optimizer.step()
        optimizer.zero_grad()
        quantiles.step()

    return step


def compressai_step(batch: Batch) -> Callable[[], None]:
    """The step of CompressAI's example training script."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = mbt2018_mean(5, pretrained=False).to(device).train()
    criterion = RateDistortionLoss(lmbda=0.01)
    settings = {"net": {"type": "Adam", "lr": 1e-4}, "aux": {"type": "Adam", "lr": 1e-3}}
    optimizers = net_aux_optimizer(model, settings)
    images = batch.images.to(device).contiguous()

    def step() -> None:
        optimizers["net"].zero_grad()
        optimizers["aux"].zero_grad()
        criterion(model(images), images)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers["net"].step()
        model.aux_loss().backward()
        optimizers["aux"].step()

    return step


def seconds_per_call(call: Callable[[], None], calls: int) -> float:
    """Median over `calls`, after two calls that do not count."""
    times = []
    for _ in range(calls + 2):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


def rows(arguments: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Names of what is measured, and samples per second."""
    size, count = arguments.crop, arguments.batch
    crops = torch.rand(count, 3, size, size).contiguous(memory_format=torch.channels_last)
    batch = Batch(crops, torch.linspace(0, 1, count, dtype=torch.float64))
    if arguments.images:
        for name, cache in (("loader, images decoded each time", 0), ("loader, images cached", 1 << 32)):
            plan = CropPlan(0, 0, size, count, resize_small=True)
            sampler = CropSampler(ImageStore(find_images((arguments.images,)), cache), plan)
            for epoch_step in range(len(sampler.store) // count + 1 if cache else 0):
                sampler.pixels(epoch_step)
            steps = iter(range(10**6))
            yield name, count / seconds_per_call(lambda s=sampler, n=steps: s.pixels(next(n)), 20)
    names = ("dcae-small", "dcae") if arguments.full else ("dcae-small",)
    layouts = [(False, False), (True, False)] + [(True, True)] * arguments.compile
    for name, precision, (channels_last, compiled) in product(names, ("fp32", "bf16"), layouts):
        label = f"{name}, {precision}{', channels last' if channels_last else ''}{', compiled' if compiled else ''}"
        step = our_step(name, precision, channels_last, compiled, batch)
        yield label, count / seconds_per_call(step, arguments.steps)
    yield (
        "mbt2018-mean, CompressAI's example step, fp32",
        count / seconds_per_call(compressai_step(batch), arguments.steps),
    )


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="steps that count, per row")
    parser.add_argument("--crop", type=int, default=128, help="side of the crops")
    parser.add_argument("--batch", type=int, default=8, help="crops per step")
    parser.add_argument("--images", help="folder of images, for the rows of the loader")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile (minutes on CPU)")
    parser.add_argument("--full", action="store_true", help="also the published size")
    arguments = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    print(f"| {arguments.batch} crops of {arguments.crop}², {device} | samples/s |\n|---|---|")
    for name, speed in rows(arguments):
        print(f"| {name} | {speed:.2f} |", flush=True)


if __name__ == "__main__":
    main()
