"""Weights in and out: published checkpoints, safetensors files, fingerprints."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .limits import check_coding_tables, check_scale_table
from .registry import create_model

FORMAT = "tto-base-model-1"
SIDE_PREFIX = "side."  # tensors below it belong to modules beside the base


class CheckpointError(ValueError):
    """A checkpoint cannot be read or does not fit; the message names the file or the tensor."""


def canonical_state_dict(raw: dict) -> dict[str, Tensor]:
    """Renames every foreign checkpoint key: the only place that knows them.

    Published checkpoints may sit under `state_dict`, carry a `module.` prefix (DataParallel), and name the parameters
    of the entropy bottleneck `_matrixN`, `_biasN`, `_factorN` (CompressAI < 1.2.5).
    """
    for wrapper in ("state_dict", "model"):
        if isinstance(raw.get(wrapper), dict):
            raw = raw[wrapper]
    plural = {"matrix": "matrices", "bias": "biases", "factor": "factors"}
    state = {}
    for key, value in raw.items():
        key = key.removeprefix("module.")
        key = re.sub(
            r"^entropy_bottleneck\._(matrix|bias|factor)(\d)$",
            lambda m: f"entropy_bottleneck.{plural[m[1]]}.{m[2]}",
            key,
        )
        if isinstance(value, Tensor):
            state[key] = value
    return state


def load_weights(model: nn.Module, raw: dict) -> nn.Module:
    """Puts a checkpoint's tensors into `model`, builds coding tables where it has none, and returns it in eval mode.

    Raises `CheckpointError` naming the first key that is missing, unexpected, of another shape, or not finite, or the
    coding tables that cannot be.
    """
    state = canonical_state_dict(raw)
    _check_names(state, model)
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{key} holds values that are not finite")
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    if model.gaussian_conditional.quantized_cdf.numel() == 0:
        model.update()
    scales = model.gaussian_conditional.scale_table
    try:
        check_scale_table(scales)
        check_coding_tables("gaussian_conditional", model.gaussian_conditional, len(scales))
        check_coding_tables("entropy_bottleneck", model.entropy_bottleneck, model.config.N)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    return model.eval().requires_grad_(False)


def _check_names(state: Mapping[str, Tensor], model: nn.Module) -> None:
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


def load_checkpoint(path: str | Path, name: str | None = None, **overrides) -> nn.Module:
    """A model from a file, in eval mode, float32, with its integer coding tables.

    A safetensors file written by `save_checkpoint` says itself which model it is; for a published PyTorch checkpoint
    `name` does (default `"dcae"`) and `overrides` of its configuration, and it is unpickled with `weights_only`.
    Raises `CheckpointError`.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                keys = [key for key in file.keys() if not key.startswith(SIDE_PREFIX)]  # noqa: SIM118
                state = {key: file.get_tensor(key) for key in keys}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path} is no base-model file (format {metadata.get('format')!r})")
            name, overrides = metadata["model"], json.loads(metadata["config"])
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise CheckpointError(f"{path} holds no state dict")
        return load_weights(_empty_model(name or "dcae", overrides, state), state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path} is damaged or is no checkpoint") from None


def _empty_model(name: str, overrides: dict, state: dict) -> nn.Module:
    """The network for `state`, in memory only once a skeleton without any has its names and shapes."""
    try:
        with torch.device("meta"):
            skeleton = create_model(name, **overrides)
    except ValueError as error:
        raise CheckpointError(f"its configuration cannot be: {error}") from None
    _check_names(canonical_state_dict(state), skeleton)
    return create_model(name, **overrides)


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    dtype: torch.dtype | None = None,
    exact: bool = False,
    extra: Mapping[str, Tensor] = MappingProxyType({}),
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Writes weights, coding tables and configuration as safetensors, atomically.

    `dtype` (for example `torch.float16`) is what parameters are stored in, with `exact` only those that lose nothing;
    tables and buffers stay as they are. `extra` tensors and `metadata` are stored beside, as they are.
    Raises `CheckpointError` where a weight is not finite in `dtype`.
    """
    parameters = {key for key, _ in model.named_parameters()}
    state = dict(extra)
    for key, value in model.state_dict().items():
        if dtype is not None and key in parameters and not key.startswith("entropy_bottleneck"):
            narrow = value.to(dtype)
            value = value if exact and not torch.equal(narrow.to(value.dtype), value) else narrow
        state[key] = value
    for key, value in state.items():
        state[key] = value = value.detach().cpu().contiguous()
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"{key} holds values that are not finite in {value.dtype}")
    config = json.dumps(asdict(model.config))
    metadata = {"format": FORMAT, "model": model.registered_name, "config": config, **metadata}
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(save(state, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def fingerprint(model: nn.Module) -> bytes:
    """First 8 bytes of the SHA-256 of the canonical weights."""
    return digest(model.state_dict())[:8]


def digest(state: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of tensors: names in order, shapes, values as little-endian float32 or int32."""
    sha = hashlib.sha256()
    for key, value in sorted(state.items()):
        array = value.detach().cpu()
        array = array.float().numpy().astype("<f4") if array.is_floating_point() else array.numpy().astype("<i4")
        sha.update(f"{key} {list(array.shape)}\n".encode())
        sha.update(array.tobytes())
    return sha.digest()
