"""What an encoder of the bench gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Encoded:
    """One compressed image; figures that a codec does not have are `nan`. Names as in `Row`.

    peak_memory_mb: of a program of its own that encoded; `nan` where this process did.
    """

    data: bytes = field(repr=False)
    J: float = math.nan
    base_bytes: float = math.nan
    base_psnr: float = math.nan
    base_J: float = math.nan
    steps: int = 0
    parameters: int = 0
    peak_memory_mb: float = math.nan
