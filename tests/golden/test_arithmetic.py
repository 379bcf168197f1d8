"""Files decode to the same symbols whichever instructions the processor has, and however many threads there are.

The golden files are decoded once more in processes of other arithmetic; the tests beside this file say what must hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CHILD = """
import sys, pytest, torch
print("computes with", torch.backends.cpu.get_cpu_capability())
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/golden/test_files.py"]))
"""


@pytest.mark.parametrize(
    "arithmetic",
    [
        {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "1"},
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "2"},
    ],
    ids=lambda arithmetic: " ".join(arithmetic.values()),
)
def test_golden_files_decode_with_other_arithmetic(arithmetic):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **arithmetic}
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-2000:]
    capability = arithmetic.get("ATEN_CPU_CAPABILITY", torch.backends.cpu.get_cpu_capability())
    assert f"computes with {capability.upper()}\n" in done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout
