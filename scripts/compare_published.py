"""The table that people ask of a codec: published weights without refinement and with `best`, at every λ, on Kodak.

    python scripts/compare_published.py WEIGHTS --out table

WEIGHTS has one folder per codec (dcae, tcm, mbt2018-mean, …), each with one .safetensors file per λ, as
`tto models convert` writes them, or one .safetensors file of a codec of several rates, measured at all of them. Live
anchor is VVenC; VTM is as published. What else is given goes to `tto bench`: other efforts, anchors (with
--against NAME), qualities, --jobs, --device.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tto.models import WEIGHTS_SUFFIX


def codecs(weights: Path) -> list[Path]:
    """Folders in it that hold checkpoints, and checkpoints beside them, by name."""
    folders = {path.parent for path in weights.glob(f"*/*{WEIGHTS_SUFFIX}")}
    return sorted(folders.union(weights.glob(f"*{WEIGHTS_SUFFIX}")))


def bench_arguments(weights: Path, dataset: str) -> list[str]:
    """What `tto bench` is told. Raises SystemExit where there is no folder, or no checkpoint in it."""
    found = codecs(weights)
    if not found:
        print(f"no {WEIGHTS_SUFFIX} checkpoints in {weights}: make some with 'tto models convert'", file=sys.stderr)
        sys.exit(2)
    models = ",".join(map(str, found))
    options = ["--effort", "none,best", "-q", "all", "--anchors", "vvc", "--against", "vvc"]
    return ["bench", dataset, "-m", models, *options]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="folder of folders of checkpoints")
    parser.add_argument("--dataset", default="kodak", help="a data set's name, or a folder of images")
    options, others = parser.parse_known_args()
    command = [sys.executable, "-m", "tto", *bench_arguments(options.weights, options.dataset), *others]
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
