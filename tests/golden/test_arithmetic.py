"""Files decode to the same symbols whichever instructions the processor has, and however many threads there are.

The golden files are decoded once more in processes of other arithmetic; the tests beside this file say what must hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "arithmetic",
    [
        {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "1"},
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "2"},
    ],
    ids=lambda arithmetic: " ".join(arithmetic.values()),
)
def test_golden_files_decode_with_other_arithmetic(arithmetic):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/golden/test_files.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **arithmetic}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout
