"""Peak memory of one piece of work."""

from __future__ import annotations

import math
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"


def reset_peak(device: str) -> float:
    """Start anew; the megabytes that are held now, as `peak_mb` counts them, `nan` where the count goes on.

    `device` is a torch device's name; `cuda` is the one in use. What was freed goes back to the system
    first, where that can be had.
    """
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e6
    from base_models.heap import return_freed

    return_freed()
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return math.nan
    return peak_mb(device)


def peak_mb(device: str) -> float:
    """Megabytes (10⁶) since `reset_peak`: allocated on a GPU, resident in this process on a CPU.

    `nan` where the system does not say (only Linux can start the count anew).
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e6
    if not _CLEAR_REFS.exists():
        return math.nan
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
