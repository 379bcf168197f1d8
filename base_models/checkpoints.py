"""Weights in and out: published checkpoints, safetensors files, fingerprints."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .base import BaseModel, rename
from .entropy_models import EntropyModel
from .limits import check_coding_tables, check_scale_table
from .registry import create_model, list_models, networks, registered

FORMAT = "tto-base-model-1"
SIDE_PREFIX = "side."  # tensors below it belong to modules beside the base
PREFIXES = ("module.", "model.", "net.")
METRICS = ("mse", "ms-ssim")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")
BOTTLENECK = (
    (r"\b_matri(?:x|ces\.)(\d)$", r"matrices.\1"),
    (r"\b_bias(?:es\.)?(\d)$", r"biases.\1"),
    (r"\b_factor(?:s\.)?(\d)$", r"factors.\1"),
)
"""Renames of an entropy bottleneck's parameters: CompressAI had `_matrices.0` in 2020, whose names the weights of its
zoo keep, then `_matrix0`, and has `matrices.0` since 1.2.5."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read or does not fit; the message names the file or the tensor."""


def canonical_state_dict(raw: dict) -> dict[str, Tensor]:
    """Tensors of any checkpoint by the names of today; those of one network only it knows (`BaseModel.rename_keys`).

    Checkpoints may sit in a dictionary of a trainer (`WRAPPERS`), and names may carry what DataParallel (`module.`),
    `torch.compile` (`_orig_mod.`) or a module of Lightning (`model.` or `net.`) put before all of them.
    """
    for wrapper in WRAPPERS:
        if isinstance(raw.get(wrapper), dict):
            raw = raw[wrapper]
    state = {
        key.replace("_orig_mod.", ""): value
        for key, value in raw.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    while state and (prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None)):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return rename(state, BOTTLENECK)


def load_weights(model: BaseModel, raw: dict) -> BaseModel:
    """Puts a checkpoint's tensors into `model`, builds coding tables where it has none, and returns it in eval mode.

    Raises `CheckpointError` naming the first key that is missing, unexpected, of another shape, or not finite, or the
    coding tables that cannot be.
    """
    state = model.rename_keys(canonical_state_dict(raw))
    _check_names(state, model)
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{key} holds values that are not finite")
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    try:
        model.update_tables(missing=True)
        if model.scale_table is not None:
            check_scale_table(model.scale_table)
        for name, prior in model.named_modules():
            if isinstance(prior, EntropyModel):
                check_coding_tables(name, prior.tables(), prior.table_count)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return model.eval().requires_grad_(False)


def _check_names(state: Mapping[str, Tensor], model: BaseModel) -> None:
    """Raises `CheckpointError` unless the tensors have the names and shapes of the model's."""
    own = model.state_dict()
    tables = re.compile(r"\.(_quantized_cdf|_offset|_cdf_length|scale_table)$")
    for key in sorted(own.keys() | state.keys()):
        if key not in state:
            raise CheckpointError(f"checkpoint lacks {key}")
        if key not in own:
            raise CheckpointError(f"checkpoint has {key}, which the model does not know")
        if not tables.search(key) and state[key].shape != own[key].shape:
            raise CheckpointError(f"{key} has shape {list(state[key].shape)}, expected {list(own[key].shape)}")


def load_checkpoint(path: str | Path, name: str | None = None, **overrides) -> BaseModel:
    """A model from a file, in eval mode, float32, with its integer coding tables.

    A safetensors file written by `save_checkpoint` says itself which model it is; for a published PyTorch checkpoint
    `name` does, or else its tensors do, and `overrides` say what its tensors do not tell of its configuration; it is
    unpickled with `weights_only`. Raises `CheckpointError`.
    """
    path, metric = Path(path), BaseModel.metric
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                keys = [key for key in file.keys() if not key.startswith(SIDE_PREFIX)]  # noqa: SIM118
                state = {key: file.get_tensor(key) for key in keys}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no base-model file (format {metadata.get('format')!r})")
            name, overrides = _known(str(metadata["model"])), json.loads(metadata["config"])
            metric = metadata.get("metric", metric)
            if metric not in METRICS:
                raise CheckpointError(f"{path}: its metric is {metric!r}, expected one of {', '.join(METRICS)}")
        else:
            state = _unpickled(path)
            name, told = recognize(state) if name is None else _recognize_as(_known(name), state)
            overrides |= told
        assert name is not None
        model = load_weights(_empty_model(name, overrides, state), state)
        model.metric = metric
        return model
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (
        OSError, SafetensorError, pickle.UnpicklingError, EOFError,
        RuntimeError, LookupError, ArithmeticError, TypeError, ValueError,  # tensors of shapes that none has
    ):  # fmt: skip
        raise CheckpointError(f"{path} is damaged or is no checkpoint") from None


def _unpickled(path: Path) -> dict:
    """What PyTorch saved. Raises `CheckpointError` where that is no dictionary or has objects in it."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (named := re.search(r"(?:GLOBAL|class) '?([\w.]+)", str(error))) is None:
            raise
        raise CheckpointError(
            f"{path} holds objects beside tensors ({named[1]}), which are not loaded: save its state_dict alone"
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state dict")
    return state


def _known(name: str) -> str:
    """The name of a registered model. Raises `CheckpointError` for another."""
    try:
        registered(name)
    except KeyError as error:
        raise CheckpointError(error.args[0]) from None
    return name


def recognize(raw: dict) -> tuple[str, dict[str, Any]]:
    """Which registered model a published checkpoint is of, by names and shapes, and fields of its configuration that
    differ. Raises `CheckpointError` that names the networks which are known.
    """
    state = canonical_state_dict(raw)
    for network in networks():
        if (found := network.recognize(state)) is not None:
            return found
    for name in list_models():
        if registered(name)[0].recognize.__func__ is not BaseModel.recognize.__func__:
            continue
        with suppress(CheckpointError), torch.device("meta"):
            skeleton = create_model(name)
            _check_names(skeleton.rename_keys(state), skeleton)
            return name, {}
    known = ", ".join(network.registered_name for network in networks())
    raise CheckpointError(f"its tensors are of no network that is known: {known}")


def _recognize_as(name: str, raw: dict) -> tuple[str, dict[str, Any]]:
    """The same for a network whose name is given."""
    found = registered(name)[0].recognize(canonical_state_dict(raw))
    return found if found is not None and found[0] == name else (name, {})


def _empty_model(name: str, overrides: dict, state: dict) -> BaseModel:
    """The network for `state`, in memory only once a skeleton without any has its names and shapes."""
    try:
        with torch.device("meta"):
            skeleton = create_model(name, **overrides)
    except ValueError as error:
        raise CheckpointError(f"its configuration cannot be: {error}") from None
    _check_names(skeleton.rename_keys(canonical_state_dict(state)), skeleton)
    return create_model(name, **overrides)


def checkpoint_bytes(
    model: BaseModel,
    dtype: torch.dtype | None = None,
    exact: bool = False,
    extra: Mapping[str, Tensor] = MappingProxyType({}),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Weights, coding tables and configuration as a safetensors file.

    `dtype` (for example `torch.float16`) is what parameters are stored in, with `exact` only those that lose nothing;
    tables and buffers stay as they are, and so do parameters that tables are built from. `extra` tensors and `metadata`
    are stored beside, as they are. Raises `CheckpointError` where a weight is not finite in `dtype`.
    """
    tabled = {id(parameter) for prior in model.entropy_models() for parameter in prior.parameters()}
    narrowed = {key for key, parameter in model.named_parameters() if id(parameter) not in tabled}
    state = dict(extra)
    for key, value in model.state_dict().items():
        if dtype is not None and key in narrowed:
            narrow = value.to(dtype)
            value = value if exact and not torch.equal(narrow.to(value.dtype), value) else narrow
        state[key] = value
    for key, value in state.items():
        state[key] = value = value.detach().cpu().contiguous()
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{key} holds values that are not finite in {value.dtype}")
    known = {"format": FORMAT, "model": model.registered_name, "config": json.dumps(asdict(model.config))}
    if model.metric != BaseModel.metric:
        known["metric"] = model.metric
    return save(state, {**known, **metadata})


def save_checkpoint(model: BaseModel, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes `checkpoint_bytes` to a file, not atomically. Raises `CheckpointError` or `OSError`."""
    Path(path).write_bytes(checkpoint_bytes(model, dtype))


def fingerprint(model: BaseModel) -> bytes:
    """First 8 bytes of the SHA-256 of the canonical weights, or of that and `beside_weights` where there are such."""
    weights, more = digest(model.state_dict()), model.beside_weights.encode()
    return (hashlib.sha256(weights + more).digest() if more else weights)[:8]


def digest(state: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of tensors: names in order, shapes, values as little-endian float32 or int32."""
    sha = hashlib.sha256()
    for key, value in sorted(state.items()):
        array = value.detach().cpu()
        array = array.float().numpy().astype("<f4") if array.is_floating_point() else array.numpy().astype("<i4")
        sha.update(f"{key} {list(array.shape)}\n".encode())
        sha.update(array.tobytes())
    return sha.digest()
