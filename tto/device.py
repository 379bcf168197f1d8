"""Where to compute."""

from __future__ import annotations

import torch

from tto.errors import BadArgument


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is a CUDA device where there is one, else the CPU. Raises `BadArgument`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise BadArgument(f"unknown device {name!r}: auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BadArgument("no CUDA device on this machine; use --device cpu")
    return torch.device(name)


def descends_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is worth having for gradients: it halves a step where the machine multiplies it itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported()
