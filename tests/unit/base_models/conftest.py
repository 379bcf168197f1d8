"""Networks of a few thousand parameters, whose random weights give latents of natural scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from base_models import BaseModel, create_model

DCAE_SIZES = {
    "stage_channels": (8, 8, 16), "swin_layers": (0, 0, 1), "head_dims": (4, 8, 8), "hyper_head_dim": 8, "M": 16,
    "N": 8, "num_slices": 2, "dict_entries": 8, "dict_heads": 2, "dict_head_dim": 8, "context_widths": (8, 8),
}  # fmt: skip
ELIC_SIZES = {"N": 8, "M": 16, "groups": (4, 4, 8), "context_widths": (8, 8)}
DICTIONARY = {"dict_entries": 8, "dict_heads": 2, "dict_head_dim": 8}
TINY = {
    "dcae": DCAE_SIZES,
    "dcae-small": DCAE_SIZES,
    "dcae-global-token": DCAE_SIZES | {"dict_entries": 4},
    "tcm": {
        "N": 8, "M": 16, "z_channels": 8, "blocks": (1, 1, 1), "head_dims": (8, 8, 8), "window": 4, "hyper_blocks": 1,
        "hyper_head_dim": 8, "num_slices": 2, "attention_channels": 8, "attention_head_dim": 8,
        "context_widths": (8, 8),
    },
    "elic": ELIC_SIZES,
    "elic-both": ELIC_SIZES | DICTIONARY,
    "elic-small-dictionary": DICTIONARY | {"N": 16, "hyper_head_dim": 8, "context_widths": (8, 8)},
    "ftic-small": {},
    "grm": {"N": 8, "M": 16, "hidden": 24},
} | dict.fromkeys(
    ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor", "cheng2020-attn"),
    {"N": 16, "M": 16},
) | {
    "bmshj2018-hyperprior-vbr": {"N": 16, "M": 16, "z_steps": False},
    "mbt2018-mean-vbr": {"N": 16, "M": 16},
}  # fmt: skip
"""Overrides that make a registered model tiny, at least one of every class."""
Y_STD, Z_STD, SIGMA = 3.0, 2.0, 2.0


@pytest.fixture(scope="session")
def tiny_models() -> dict[str, dict[str, Any]]:
    return TINY


@pytest.fixture(scope="session", params=TINY)
def tiny_name(request) -> str:
    """The name of a model that `lively_model` takes."""
    return request.param


@pytest.fixture(scope="session")
def lively_model() -> Callable[[str, torch.Tensor], BaseModel]:
    """`lively_model(name, images)`: a registered model made tiny, fitted to images [B, 3, H, W], ready to code."""
    return make_lively


def make_lively(name: str, images: torch.Tensor) -> BaseModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = create_model(name, **TINY[name])
    model.init_from_images(images)
    with torch.no_grad():
        y = model.analysis(images)
        if not 1 < y.std() < 10:
            scale_last(model.g_a, Y_STD / y.std())
        z = model.hyper_analysis(model.analysis(images))
        if z.numel() and not 1 < z.std() < 10:
            scale_last(model.h_a, Z_STD / z.std())
        for part in ("entropy_parameters", "h_s"):
            if hasattr(model, part):
                last = convolutions(getattr(model, part))[-1]
                last.bias[: model.y_channels] += SIGMA  # the first half, or all, are scales
                break
    model.eval().requires_grad_(False).update_tables(fit_quantiles=True)
    return model


def scale_last(network: nn.Module, factor: torch.Tensor) -> None:
    for parameter in convolutions(network)[-1].parameters():
        parameter *= factor


def convolutions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
