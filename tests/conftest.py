"""What many tests need: a network small enough to code a picture in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_sizes() -> dict[str, Any]:
    """Overrides that make of "dcae-small" a network of about 100,000 parameters."""
    return {
        "stage_channels": (8, 8, 16),
        "swin_layers": (0, 0, 1),
        "head_dims": (4, 8, 8),
        "hyper_head_dim": 8,
        "M": 16,
        "N": 8,
        "num_slices": 2,
        "dict_entries": 8,
        "dict_heads": 2,
        "dict_head_dim": 8,
        "context_widths": (8, 8),
    }


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_sizes) -> Path:
    """That network with eight qualities, untrained, as a file that `-m` takes."""
    import torch

    from base_models import create_model, save_checkpoint

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("dcae-small", **tiny_sizes)
    model.update()
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_checkpoint(model.eval(), path)
    return path
