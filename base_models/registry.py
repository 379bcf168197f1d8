"""Names of base models and how to make them."""

from __future__ import annotations

from dataclasses import replace

from compressai.registry import register_model
from torch import nn

from .dcae import DCAE, DCAEConfig

SMALL_LAMBDAS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)

MODELS = {
    "dcae": (DCAE, DCAEConfig()),
    "dcae-small": (
        DCAE,
        DCAEConfig(
            stage_channels=(32, 48, 80),
            swin_layers=(0, 0, 2),
            head_dims=(8, 16, 16),
            M=160,
            N=48,
            num_slices=4,
            dict_entries=64,
            dict_heads=4,
            dict_head_dim=16,
            context_widths=(36, 32),
            hyper_head_dim=16,
            lambdas=SMALL_LAMBDAS,
        ),
    ),
}

register_model("dcae")(DCAE)


def list_models() -> tuple[str, ...]:
    """Names that `create_model` takes."""
    return tuple(MODELS)


def create_model(name: str, **overrides) -> nn.Module:
    """A new, untrained network; `overrides` replace fields of its configuration.

    Raises `KeyError` for an unknown name and `TypeError` for an unknown field.
    """
    if name not in MODELS:
        raise KeyError(f"unknown model {name!r}; known: {', '.join(MODELS)}")
    network, config = MODELS[name]
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    model = network(replace(config, **fields))
    model.registered_name = name
    return model
