"""Batches of random crops whose content depends only on seed, stage and step, prepared ahead of the trainer.

Sample k of a stage is number `k mod n` of a permutation of the n images that changes every epoch; its crop, flip and
quality come from a generator seeded with (seed, stage, k). So a run that resumes, or that is divided among several
processes, sees exactly the samples of an uninterrupted run in one process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tto.train.errors import DataError
from tto.train.images import ImageStore

SNAPPED = 0.03  # of all samples are at the lowest quality, and as many at the highest


@dataclass(frozen=True)
class Batch:
    """`images` float [B, 3, H, W] in [0, 1], channels last; `position` float64 [B], 0 lowest to 1 highest quality."""

    images: Tensor
    position: Tensor

    def part(self, start: int, count: int) -> Batch:
        return Batch(self.images[start : start + count], self.position[start : start + count])


@dataclass(frozen=True)
class CropPlan:
    """What every process must agree on to draw the same samples."""

    seed: int
    stage: int
    crop: int
    batch: int  # per step, over all processes
    resize_small: bool = False
    zoom: float = 1.0  # half of the crops are enlarged, by up to this factor


class CropSampler:
    """Draws the crops of one process."""

    def __init__(self, store: ImageStore, plan: CropPlan, rank: int = 0, processes: int = 1):
        self.store = store
        self.plan = plan
        self.local = plan.batch // processes
        self.first = rank * self.local
        self._permutation = lru_cache(maxsize=4)(self._permute)

    def pixels(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Crops uint8 [B, crop, crop, 3] and quality positions float64 [B] of this process at `step`."""
        start = step * self.plan.batch + self.first
        drawn = [self.sample(k) for k in range(start, start + self.local)]
        return np.stack([crop for crop, _ in drawn]), np.array([position for _, position in drawn])

    def sample(self, k: int) -> tuple[np.ndarray, float]:
        """Sample k of the stage."""
        random = np.random.default_rng([self.plan.seed, self.plan.stage, k])
        stratum = (k % self.plan.batch + random.random()) / self.plan.batch  # a batch covers all qualities evenly
        position = float(np.clip(stratum * (1 + 2 * SNAPPED) - SNAPPED, 0.0, 1.0))
        pixels = self._fit(self._image(k))
        size = round(self.plan.crop / self._enlargement(random))
        top = random.integers(pixels.shape[0] - size + 1)
        left = random.integers(pixels.shape[1] - size + 1)
        crop = pixels[top : top + size, left : left + size]
        if size != self.plan.crop:
            enlarged = Image.fromarray(crop).resize((self.plan.crop, self.plan.crop), Image.Resampling.BICUBIC)
            crop = np.asarray(enlarged)
        return (crop[:, ::-1] if random.random() < 0.5 else crop), position

    def _enlargement(self, random: np.random.Generator) -> float:
        if self.plan.zoom == 1.0 or random.random() < 0.5:
            return 1.0
        return random.uniform(1.0, self.plan.zoom)

    def _image(self, k: int) -> np.ndarray:
        """The image of sample k, or the next usable one of the permutation."""
        count = len(self.store)
        order = self._permutation(k // count)
        min_side = 1 if self.plan.resize_small else self.plan.crop
        for offset in range(count):
            pixels = self.store.get(int(order[(k + offset) % count]), min_side)
            if pixels is not None:
                return pixels
        raise DataError(f"none of {count} images can be used; the last: {list(self.store.skipped.values())[-1]}")

    def _permute(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.plan.seed, self.plan.stage, epoch, 1]).permutation(len(self.store))

    def _fit(self, pixels: np.ndarray) -> np.ndarray:
        """Enlarges an image that is smaller than the crop until its short side fits (bicubic)."""
        size = self.plan.crop
        height, width = pixels.shape[:2]
        if min(height, width) >= size:
            return pixels
        scale = size / min(height, width)
        new = max(size, round(width * scale)), max(size, round(height * scale))
        return np.asarray(Image.fromarray(pixels).resize(new, Image.Resampling.BICUBIC))


def prefetch(
    sampler: CropSampler, start: int, workers: int, device: torch.device, ahead: int = 4
) -> Generator[Batch, None, None]:
    """Batches from step `start` on, without end, `ahead` of them prepared by threads."""
    with ThreadPoolExecutor(workers, thread_name_prefix="crops") as pool:
        waiting = deque(pool.submit(sampler.pixels, start + i) for i in range(ahead))
        step = start + ahead
        try:
            while True:
                pixels, positions = waiting.popleft().result()
                waiting.append(pool.submit(sampler.pixels, step))
                step += 1
                yield to_batch(pixels, positions, device)
        finally:
            for future in waiting:
                future.cancel()


def to_batch(pixels: np.ndarray, positions: np.ndarray, device: torch.device) -> Batch:
    """Moves crops to the device and makes them float."""
    images = torch.from_numpy(pixels).to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255.0)
    return Batch(images, torch.from_numpy(positions))
