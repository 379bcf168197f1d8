"""What a codec command waits for before it works: PyTorch, and nothing that it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

UNUSED = {
    "compressai",
    "torch_geometric",
    "torchvision",
    "timm",
    "matplotlib",
    "pandas",
    "scipy",
    "vector_quantize_pytorch",
}
RUN = """
import sys
sys.argv = ["tto", *{arguments!r}]
from tto.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(*sys.modules, file=sys.stderr)
"""


def modules_after(*arguments: str | Path) -> set[str]:
    """Names of the packages that a command has imported."""
    program = RUN.format(arguments=[str(argument) for argument in arguments])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}


@pytest.mark.parametrize("effort", ["none", "fast"])
def test_compressing_and_decompressing_import_nothing_that_they_do_not_use(
    tiny_checkpoint, photograph, tmp_path, effort
):
    photograph(64, 64).save(tmp_path / "a.png")
    options = ["-m", tiny_checkpoint]
    written = modules_after("compress", tmp_path / "a.png", "--effort", effort, *options)
    read = modules_after("decompress", tmp_path / "a.tto", "-o", tmp_path / "b.png", *options)
    assert (tmp_path / "b.png").exists() and "torch" in written & read
    assert not (written | read) & UNUSED


def test_computing_over_tiles_does_not_import_a_compiler():
    program = """
import sys, torch
from base_models.tiles import Findings, run_bounded
step = torch.nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)
run_bounded([step], (torch.zeros(1, 1, 64, 64, requires_grad=True),), 2000.0, Findings())[0].sum().backward()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
