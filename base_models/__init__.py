"""Learned image codecs as networks of tensors: no image files, no command line.

Names load on first use: what only reads integer tables does not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import BaseModel, LatentShapes, Memory, Walk
    from .checkpoints import (
        CheckpointError,
        checkpoint_bytes,
        fingerprint,
        load_checkpoint,
        load_weights,
        save_checkpoint,
    )
    from .registry import create_model, list_models, register

_HOMES = {
    "BaseModel": "base",
    "CheckpointError": "checkpoints",
    "LatentShapes": "base",
    "Memory": "base",
    "Walk": "base",
    "checkpoint_bytes": "checkpoints",
    "create_model": "registry",
    "fingerprint": "checkpoints",
    "list_models": "registry",
    "load_checkpoint": "checkpoints",
    "load_weights": "checkpoints",
    "register": "registry",
    "save_checkpoint": "checkpoints",
}
__all__ = [
    "BaseModel",
    "CheckpointError",
    "LatentShapes",
    "Memory",
    "Walk",
    "checkpoint_bytes",
    "create_model",
    "fingerprint",
    "list_models",
    "load_checkpoint",
    "load_weights",
    "register",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'base_models' has no attribute {name!r}")
    return getattr(import_module(f"base_models.{_HOMES[name]}"), name)
