"""Learned image codecs as networks of tensors: no image files, no command line."""

from .checkpoints import CheckpointError, fingerprint, load_checkpoint, load_weights, save_checkpoint
from .registry import create_model, list_models

__all__ = [
    "CheckpointError",
    "create_model",
    "fingerprint",
    "list_models",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
