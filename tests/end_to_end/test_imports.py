"""What a codec command waits for before it works: PyTorch, and nothing that it does not use."""

from __future__ import annotations

import subprocess
import sys

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
PROGRAM = """
import sys, torch
from base_models.tiles import Findings, run_bounded
from tto.__main__ import main

step = torch.nn.Conv2d(1, 1, 3, padding=1).requires_grad_(False)
run_bounded([step], (torch.zeros(1, 1, 64, 64, requires_grad=True),), 2000.0, Findings())[0].sum().backward()
assert "torch._dynamo" not in sys.modules, "computing over tiles imports a compiler"
for arguments in {commands!r}:
    sys.argv = ["tto", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
print(*sys.modules, file=sys.stderr)
"""


def test_compressing_and_decompressing_import_nothing_that_they_do_not_use(tiny_checkpoint, photograph, tmp_path):
    photograph(64, 64).save(tmp_path / "a.png")
    names = {name: str(tmp_path / name) for name in ("a.png", "a.tto", "b.png")}
    options = ["-m", str(tiny_checkpoint)]
    commands = [
        command
        for effort in ("none", "fast")
        for command in (
            ["compress", names["a.png"], "--effort", effort, *options],
            ["decompress", names["a.tto"], "-o", names["b.png"], *options],
        )
    ]
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(commands=commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}
    assert (tmp_path / "b.png").exists() and "torch" in imported
    assert not imported & UNUSED
