"""Networks of a few thousand parameters, whose random weights give latents of natural scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from base_models import BaseModel, create_model, list_models
from base_models.registry import registered
from tests.tiny_models import tiny_sizes_of

SWITCHES: dict[str, dict[str, Any]] = {"bmshj2018-hyperprior-vbr": {"z_steps": False}}
"""Fields of registered models that are tested other than as registered."""
SWITCHED: dict[str, tuple[str, dict[str, Any]]] = {
    "grm-small, switched off": ("grm-small", {"reference": False, "gsdn": False}),
    "dcae-global-token, 7 tokens": ("dcae-global-token", {"dict_entries": 7}),  # which fill no row of z
}
"""Models that are tested beside the registered ones: by another's name, with some of its fields changed."""


def network_when_tiny(name: str) -> tuple[str, dict[str, Any]]:
    """A registered name, and fields of its configuration."""
    registered_name, fields = SWITCHED.get(name) or (name, SWITCHES.get(name, {}))
    return registered_name, tiny_sizes_of(registered_name) | fields


def different_when_tiny() -> list[str]:
    """Names of registered models: of all but those that are then the same as another."""
    names = {}
    for name in list_models():
        network, config = registered(name)[:2]
        names[network, replace(config, **network_when_tiny(name)[1])] = name
    return sorted([*names.values(), *SWITCHED])


Y_STD, Z_STD, SIGMA = 3.0, 2.0, 2.0


@pytest.fixture(scope="session", params=different_when_tiny())
def tiny_name(request) -> str:
    """The name of a model that `tiny_model` and `lively_model` take."""
    return request.param


@pytest.fixture(scope="session")
def tiny_model() -> Callable[[str], BaseModel]:
    """`tiny_model(name)`: a registered model made tiny, with random weights."""
    return make_tiny


@pytest.fixture(scope="session")
def lively_model() -> Callable[[str, torch.Tensor], BaseModel]:
    """`lively_model(name, images)`: a registered model made tiny, fitted to images [B, 3, H, W], ready to code."""
    return make_lively


def make_tiny(name: str) -> BaseModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        registered_name, fields = network_when_tiny(name)
        return create_model(registered_name, **fields)


def make_lively(name: str, images: torch.Tensor) -> BaseModel:
    model = make_tiny(name)
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
