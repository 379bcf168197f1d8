"""What a run leaves behind: resolved recipe, environment, metrics, samples, curve, checkpoints, the model."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tto.files import locked_folder, write_atomic
from tto.train.errors import SaveError
from tto.train.recipe import Recipe
from tto.train.recipe_file import dump_recipe

PACKAGES = ("torch", "accelerate", "compressai", "timm", "numpy", "pillow", "safetensors")


class RunFolder:
    """Paths of one run and the files that grow with it. Only the main process writes."""

    def __init__(self, path: Path, writes: bool = True):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.model = path / "model.safetensors"
        self.recipe = path / "recipe.yaml"
        self.writes = writes

    def claimed(self) -> AbstractContextManager[None]:
        """Nobody else writes here meanwhile. Raises `FileError`, also where another process does."""
        advice = "wait for its end, or name another folder with --out"
        return locked_folder(self.path, advice) if self.writes else nullcontext()

    def start(self, recipe: Recipe) -> None:
        """Notes what is run, on what."""
        if not self.writes:
            return
        write_atomic(self.recipe, dump_recipe(recipe).encode())
        write_atomic(self.path / "environment.json", json.dumps(environment(), indent=1).encode())

    def log(self, record: dict) -> None:
        """Appends one line to the metrics."""
        if self.writes:
            with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def forget_after(self, total_steps: int) -> None:
        """Drops metrics that a resumed run will write again, and a last line cut by a crash."""
        if self.writes and self.metrics.is_file():
            kept = [r for r in read_metrics(self.metrics) if r["total_steps"] <= total_steps]
            write_atomic(self.metrics, "".join(json.dumps(r) + "\n" for r in kept).encode())

    def take_metrics(self, other: RunFolder) -> None:
        """Begins with the metrics of another run."""
        if self.writes and other.metrics.is_file():
            write_atomic(self.metrics, other.metrics.read_bytes())

    def clear(self) -> None:
        """Removes checkpoints and metrics of a run that did not begin."""
        if self.writes:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            self.metrics.unlink(missing_ok=True)

    def save_sample(self, name: str, picture: np.ndarray) -> None:
        """A picture uint8 [H, W, 3] as PNG."""
        if self.writes:
            path = self.path / "samples" / f"{name}.png"
            with writing(path):
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(picture).save(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong while `path` is written into a `SaveError` that names it."""
    try:
        yield
    except OSError as error:
        raise SaveError(f"cannot write {path}: {error.strerror or error}") from None


def read_metrics(path: Path) -> list[dict]:
    """Records of a metrics file; a last line that a crash cut short is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def environment() -> dict:
    """Versions, machine and git revision, so that a run can be repeated."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": versions,
        "git": git_revision(),
    }


def git_revision() -> str | None:
    """Commit of the source tree, with `+changes` if it was modified; None outside a repository."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
