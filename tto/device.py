"""Where to compute."""

from __future__ import annotations

import torch

from tto.errors import BadArgument

KINDS = ("cpu", "cuda", "mps", "xpu")
_place: int | None = None


def pick_device(name: str = "auto") -> torch.device:
    """A device by PyTorch's name, `cuda:1` for example; `auto` is CUDA where there is it, else the CPU.

    Raises `BadArgument` where this machine does not have it.
    """
    if name == "auto":
        return _numbered(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in KINDS:
        raise BadArgument(f"unknown device {name!r}: auto, {', '.join(KINDS)}, or one of several as in cuda:1")
    if device.type != "cpu" and (device.index or 0) >= _count(device.type):
        raise BadArgument(f"no {name} on this machine; cpu is always there")
    return _numbered(device)


def _numbered(device: torch.device) -> torch.device:
    """With the number of the GPU that this process and thread mean by `cuda`: others may mean another."""
    if device != torch.device("cuda"):
        return device
    if _place is not None:
        torch.cuda.set_device(_place % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def make_repeatable(device: torch.device) -> None:
    """From now on let convolutions on a GPU give the same every time, and in all bits of float32.

    A file is verified by decoding it again, and its pixels are to be nearly those of other machines.
    """
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False


def _count(kind: str) -> int:
    """How many devices of a kind this machine has."""
    module = getattr(torch, kind)
    available = torch.backends.mps.is_available() if kind == "mps" else module.is_available()
    return module.device_count() if available else 0


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in it; Apple's mps and some of Intel's do not."""
    try:
        return float(torch.ones(1, dtype=torch.float64, device=device).sum()) == 1.0
    except (RuntimeError, TypeError):
        return False


def descends_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is worth having for gradients: it halves a step where the machine multiplies it itself."""
    if device.type == "cuda":  # `is_bf16_supported` is also true where it is emulated
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # PyTorch's own kernels can be held to fewer instructions than the processor has, and then lack some of bfloat16's.
    return torch.cpu._is_avx512_bf16_supported() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def use_threads(number: int | None) -> None:
    """Compute with so many threads on the CPU from now on; None leaves it to PyTorch."""
    if number is not None:
        torch.set_num_threads(number)


def use_gpu(place: int) -> None:
    """Let `cuda` mean another GPU in each process of several, in turn; none is touched before it is asked for."""
    global _place
    _place = place
