"""Checkpoints of a run: written whole or not at all, checked before they are used.

    DIR/checkpoints/step-00001200/
        model.safetensors      weights and buffers
        average.safetensors    averaged weights, where the recipe keeps them
        quantiles.pt           optimizer of the entropy bottleneck's quantiles
        optimizer.bin, …       accelerate's state (optimizer, loss scaler, generators of each process)
        progress.json          stage, step, seconds
        manifest.json          SHA-256 of every file above, and what the run was

A folder that is being written is called `.unfinished-…`; it is renamed when every file is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import RNG_STATE_NAME, load
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from tto.train.ema import AveragedModel
from tto.train.errors import ResumeError, SaveError
from tto.train.identity import is_free
from tto.train.optimizers import QuantileOptimizer
from tto.train.side_model import BaseWithSide

WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)  # torch reports a full disk as RuntimeError


@dataclass
class Progress:
    """How far a run is; everything that a resumed run continues from."""

    stage: str  # name
    step: int = 0  # updates done in this stage
    total_steps: int = 0  # updates done in the run
    stage_seconds: float = 0.0
    total_seconds: float = 0.0
    skipped_steps: int = 0  # not finite
    average_updates: int = 0


@dataclass(frozen=True)
class TrainingState:
    """The things a checkpoint holds, apart from `Progress`."""

    model: nn.Module
    average: AveragedModel | None
    quantiles: QuantileOptimizer


def save_run(
    accelerator: Accelerator, folder: Path, state: TrainingState, progress: Progress, identity: dict, keep: int
) -> Path:
    """Writes a checkpoint below `folder`, unless it is there, and removes all but the last `keep`.

    Raises `SaveError`.
    """
    final = folder / f"step-{progress.total_steps:08d}"
    exists = final.is_dir()
    accelerator.wait_for_everyone()
    if exists:
        return final
    unfinished = folder / f".unfinished-{progress.total_steps:08d}"
    problem = None
    try:
        if accelerator.is_main_process:
            for left in folder.glob(".unfinished-*"):  # by a killed run
                shutil.rmtree(left, ignore_errors=True)
            unfinished.mkdir(parents=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(unfinished), safe_serialization=True)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _write_state(unfinished, state, progress, identity)
            os.replace(unfinished, final)
            _sync(folder)
    except WRITE_ERRORS as error:
        problem = f"cannot save {final}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
    if problem:
        if accelerator.is_main_process:
            shutil.rmtree(unfinished, ignore_errors=True)
        last = finished_checkpoints(folder)
        raise SaveError(f"{problem}; last good checkpoint: {last[-1].name if last else 'none'}")
    if accelerator.is_main_process:
        for old in finished_checkpoints(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()
    return final


def branch_checkpoint(checkpoint: Path, folder: Path, identity: dict) -> None:
    """Copies a checkpoint below `folder`, where another run, `identity`, goes on from it.

    Raises `ResumeError` or `SaveError`.
    """
    manifest = _read_manifest(checkpoint)
    _verify_files(checkpoint, manifest["files"])
    unfinished = folder / f".unfinished-{checkpoint.name}"
    try:
        shutil.copytree(checkpoint, unfinished)
        (unfinished / "manifest.json").write_text(json.dumps({**manifest, "identity": identity}, indent=1))
        os.replace(unfinished, folder / checkpoint.name)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise SaveError(f"cannot copy {checkpoint} to {folder}: {error.strerror or error}") from None


def finished_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def last_checkpoint(folder: Path) -> Path:
    """The newest checkpoint below `folder`. Raises `ResumeError`."""
    found = finished_checkpoints(folder)
    if not found:
        raise ResumeError(f"{folder.parent} has no checkpoint to resume from")
    return found[-1]


def verify_checkpoint(checkpoint: Path, identity: dict) -> None:
    """Checks a checkpoint's files and that it belongs to this run. Raises `ResumeError` naming what is wrong."""
    manifest = _read_manifest(checkpoint)
    found = {key: value for key, value in manifest["identity"].items() if not is_free(key)}
    _verify_files(checkpoint, manifest["files"])
    for key in identity.keys() | found.keys():
        if found.get(key) != identity.get(key):
            raise ResumeError(f"{checkpoint} was made with {key} = {found.get(key)!r}, not {identity.get(key)!r}")


def read_progress(checkpoint: Path) -> Progress:
    """How far the run was. Raises `ResumeError`."""
    try:
        return Progress(**json.loads((checkpoint / "progress.json").read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ResumeError(f"{checkpoint / 'progress.json'} does not fit this version: {error}") from None


def load_model_state(checkpoint: Path, model: nn.Module, average: AveragedModel | None, progress: Progress) -> None:
    """Weights and averaged weights back in place. Raises `ResumeError` naming the file."""
    for name, target in (("model", model), ("average", average.model if average else None)):
        if target is None:
            continue
        try:
            target.load_state_dict(load_file(checkpoint / f"{name}.safetensors"))
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ResumeError(f"{checkpoint / name}.safetensors does not fit: {reason}") from None
        if isinstance(target, BaseWithSide):
            target.remember_base()
    if average:
        average.updates = progress.average_updates


def load_optimizer_state(
    accelerator: Accelerator, checkpoint: Path, optimizer: Optimizer, quantiles: QuantileOptimizer
) -> None:
    """Optimizers and generators back in place, with rates, betas and the like as they were just made: a decay may have
    others than the run that it ends. Processes that the run did not have begin with the generators of the first.

    Raises `ResumeError`.
    """
    own, first = (checkpoint / f"{RNG_STATE_NAME}_{index}.pkl" for index in (accelerator.process_index, 0))
    _load_generators(own if own.is_file() else first)
    optimizers = [optimizer] if quantiles.adam is None else [optimizer, quantiles.adam]
    settings = [_without_parameters(group) for one in optimizers for group in one.param_groups]
    try:
        accelerator.load_state(str(checkpoint))
        saved = torch.load(checkpoint / "quantiles.pt", map_location="cpu", weights_only=True)
        if quantiles.adam is not None:
            quantiles.adam.load_state_dict(saved)
    except Exception as error:  # unpickling and optimizers raise many types
        raise ResumeError(f"optimizer state in {checkpoint} does not fit: {str(error).splitlines()[0]}") from None
    loaded = [group for one in optimizers for group in one.param_groups]
    for group, made in zip(loaded, settings, strict=True):
        group.update(made)


def _without_parameters(group: dict) -> dict:
    return {key: value for key, value in group.items() if key != "params"}


def _load_generators(path: Path) -> None:
    """Where accelerate cannot load these states, it goes on without them and without a word. Raises `ResumeError`."""
    try:
        states = load(path, weights_only=True)
        random.setstate(states["random_state"])
        np.random.set_state(states["numpy_random_seed"])
        torch.set_rng_state(states["torch_manual_seed"])
    except Exception as error:  # unpickling and generators raise many types
        raise ResumeError(f"{path} does not hold states of generators ({type(error).__name__})") from None


def _read_manifest(checkpoint: Path) -> dict:
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        return {key: dict(manifest[key]) for key in ("identity", "files")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ResumeError(f"{checkpoint} has no readable manifest.json") from None


def _verify_files(checkpoint: Path, digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        if not (checkpoint / name).is_file():
            raise ResumeError(f"{checkpoint} lacks {name}")
        if _digest(checkpoint / name) != digest:
            raise ResumeError(f"{checkpoint / name} is damaged (its checksum is wrong)")


def _write_state(folder: Path, state: TrainingState, progress: Progress, identity: dict) -> None:
    save_file(_tensors(state.model), folder / "model.safetensors")
    if state.average is not None:
        save_file(_tensors(state.average.model), folder / "average.safetensors")
    torch.save(state.quantiles.adam.state_dict() if state.quantiles.adam else {}, folder / "quantiles.pt")
    (folder / "progress.json").write_text(json.dumps(asdict(progress), indent=1))
    files = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    (folder / "manifest.json").write_text(json.dumps({"identity": identity, "files": files}, indent=1))
    for path in folder.iterdir():
        _sync(path)


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
