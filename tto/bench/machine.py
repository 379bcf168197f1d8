"""What a run was measured on: without it, seconds mean nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe_machine() -> dict[str, str]:
    """Processor, accelerator and versions, name → text."""
    import torch

    facts = {
        "processor": f"{processor()}, {os.cpu_count()} logical cores",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "PyTorch": torch.__version__,
    }
    if torch.cuda.is_available():
        facts["GPU"] = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"
    return facts


def processor(device: str = "cpu") -> str:
    """What computes on a torch device: the GPU's name, or of the processor the name that Linux gives, which `platform`
    leaves out.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
