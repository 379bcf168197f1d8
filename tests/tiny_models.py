"""Sizes that make of registered networks such of about 100,000 parameters."""

from __future__ import annotations

from typing import Any

from base_models.registry import registered

DICTIONARY = {"dict_entries": 8, "dict_heads": 2, "dict_head_dim": 8}
DCAE = {
    "stage_channels": (8, 8, 16), "swin_layers": (0, 0, 1), "head_dims": (4, 8, 8), "hyper_head_dim": 8,
    "M": 16, "N": 8, "num_slices": 2, "context_widths": (8, 8), **DICTIONARY,
}  # fmt: skip
ELIC = {"N": 8, "M": 16, "groups": (2, 2, 4, 8), "context_widths": (8, 8)}
SIZES: dict[str, dict[str, Any]] = {
    "DCAEConfig": DCAE,
    "GlobalTokenConfig": DCAE,
    "TCMConfig": {
        "N": 8, "M": 16, "z_channels": 8, "blocks": (1, 1, 1), "head_dims": (4, 4, 4), "hyper_blocks": 1,
        "hyper_head_dim": 4, "num_slices": 2, "attention_channels": 8, "attention_head_dim": 4,
        "context_widths": (8, 8),
    },
    "ELICConfig": ELIC,
    "ZooConfig": {"N": 16, "M": 16},
    "VbrConfig": {"N": 16, "M": 16},
    "GRMConfig": {"N": 8, "M": 16, "hidden": 24},
    "ELICDictionaryConfig": ELIC | DICTIONARY,
    "CombinationConfig": {"N": 8, "hyper_head_dim": 8, "num_slices": 2, "context_widths": (8, 8), **DICTIONARY},
    "FTICConfig": {
        "stage_channels": (8, 8, 16), "blocks": (1, 1, 2), "heads": (4, 4, 4), "hyper_channels": 8, "hyper_blocks": 2,
        "hyper_heads": 4, "M": 16, "N": 8, "num_slices": 2, "tca_depth": 1, "tca_ratio": 2, "tca_heads": 4,
    },
}  # fmt: skip


def tiny_sizes_of(name: str) -> dict[str, Any]:
    """Fields of the configuration of a registered model; none where nothing is known of its class of configuration."""
    config = registered(name)[1]
    sizes = dict(SIZES.get(type(config).__name__, {}))
    if hasattr(config, "autoencoder"):
        sizes["autoencoder"] = config.autoencoder.removesuffix("-small") + "-small"
    return sizes
