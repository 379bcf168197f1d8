"""What is freed goes back to the system."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from base_models.heap import return_freed


def resident() -> int:
    """Bytes of this process."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another")
def test_blocks_freed_between_others_go_back():
    torch.ones(7 << 20)  # from now on blocks of less than 28 MB come from the heap
    blocks = [torch.ones(1 << 18) for _ in range(128)]
    del blocks[::2]
    before = resident()
    return_freed()
    assert before - resident() > 50e6
