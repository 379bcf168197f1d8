"""Training runs as processes, for the tests beside this file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}


def start(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    """Starts `python -m tto.train`, or the same below a launcher."""
    command = [sys.executable, "-m", *(launcher or ("tto.train",)), *arguments]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen, seconds: float = 500) -> str:
    """Waits for success and returns what was printed."""
    output = process.communicate(timeout=seconds)[0]
    assert process.returncode == 0, output
    return output


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 500) -> None:
    """Waits until a path exists while the process runs."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def records(run: Path) -> list[dict]:
    """Lines of the metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    """Training loss of every logged step."""
    return [record["loss"] for record in records(run) if record["kind"] == "train"]


def last_weights(run: Path, name: str) -> dict:
    """Tensors of the last checkpoint."""
    return load_file(sorted((run / "checkpoints").glob("step-*"))[-1] / f"{name}.safetensors")
