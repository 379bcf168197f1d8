"""CompressAI, when it is needed: importing it takes seconds, and it warns of its own use of torch.jit."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any


def compressai(module: str) -> Any:
    """The module `compressai.<module>`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return import_module(f"compressai.{module}")
