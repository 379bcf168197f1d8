"""How much memory a picture takes, and how much there is: asked before a network runs, not found out while it does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from base_models.heap import return_freed
from tto.errors import NotEnoughMemory
from tto.padding import padded_size

BYTES_PER_PIXEL = 110
"""What decoding takes beside the weights, measured with the shipped model; larger networks take more."""
WHOLE = 1 << 20
"""Pixels of a picture that is computed at once, whatever that takes."""
LEAST_ACTIVATIONS, MOST_ACTIVATIONS = 32e6, 128e6
"""Bytes for a larger one's tiles. More is not faster on a processor, whose caches are small; a GPU gets more."""
ALLOCATION_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "out of memory",  # CUDA, Apple's GPUs
    "ALLOC_FAILED",  # CUDA's libraries
    "unable to find an engine",  # of cuDNN, for want of room to work in
)
PROCESS, MACHINE = Path("/proc/self/status"), Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Limit, use and its kinds in both versions of control groups, with the name of the cache that is given up first."""


def ran_out(error: BaseException) -> bool:
    """Whether an error is that of an allocation, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATION_MESSAGES)


@contextmanager
def memory_for(
    width: int, height: int, device: torch.device, stride: int = 1, walk_bytes: float = 0.0
) -> Iterator[None]:
    """Around the decoding of a picture, which grows to multiples of `stride`; `walk_bytes` as models have it.

    Raises `NotEnoughMemory`: at once where what is free cannot do, or when memory runs out all the same.
    """
    pixels, free = math.prod(padded_size(height, width, stride)), free_memory(device)
    needed = (BYTES_PER_PIXEL + walk_bytes) * pixels
    if free is not None and needed > free:
        raise NotEnoughMemory(
            f"a picture of {width}x{height} takes {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free"
        )
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        raise NotEnoughMemory(f"not enough memory for a picture of {width}x{height}") from error


@dataclass(frozen=True)
class Room:
    """Bytes that activations of a network may take at once.

    They stay the same for as long as a codec lives: other tiles round otherwise, and what it decodes is compared.
    """

    bytes: float

    @classmethod
    def on(cls, device: torch.device, weights: float = 0.0) -> Room:
        """Part of what is free now, within limits.

        A network whose `weights` take so many bytes gets twice that, as its tiles would else be mostly halo.
        """
        free = free_memory(device)
        part = math.inf if free is None else free / 8
        most = math.inf if device.type == "cuda" else max(MOST_ACTIVATIONS, 2 * weights)
        return cls(max(LEAST_ACTIVATIONS, min(most, part)))

    def for_picture(self, height: int, width: int) -> float | None:
        """None where no bound is needed, as networks take it."""
        return None if height * width <= WHOLE else self.bytes

    @contextmanager
    def lent(self, height: int, width: int) -> Iterator[float | None]:
        """The same for a piece of work, after which large pictures leave nothing behind."""
        memory = self.for_picture(height, width)
        yield memory
        if memory is not None:
            return_freed()


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still take, or None where the system does not say."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for what comes
        return torch.cuda.mem_get_info(device)[0] + kept
    rooms = [_of_machine(), _of_group(), _of_address_space()]
    known = [room for room in rooms if room is not None]
    return min(known) if known else None


def _of_machine() -> int | None:
    return _kilobytes(MACHINE, "MemAvailable")


def _of_group() -> int | None:
    """Of a container's limit."""
    for limit, used, kinds, cache in GROUP_FILES:
        try:
            figures = dict(line.split() for line in (GROUP / kinds).read_text().splitlines())
            taken = int((GROUP / used).read_text()) - int(figures[cache])
            return max(0, int((GROUP / limit).read_text()) - taken)
        except (OSError, ValueError, KeyError):  # there is none, or it is "max"
            continue
    return None


def _of_address_space() -> int | None:
    """Of `ulimit -v`."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
    except ImportError:  # not on Windows
        return None
    limit, used = getrlimit(RLIMIT_AS)[0], _kilobytes(PROCESS, "VmSize")
    return None if limit == RLIM_INFINITY or used is None else max(0, limit - used)


def _kilobytes(path: Path, name: str) -> int | None:
    """Bytes of the line `name: … kB`."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
        return 1024 * int(lines[name].split()[0])
    except (OSError, KeyError):
        return None
