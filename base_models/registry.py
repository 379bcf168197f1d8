"""Names of base models and how to make them.

A model's file registers its named configurations itself; all files of this package are looked through on first use.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import BaseModel

_REGISTERED: dict[str, tuple[type[BaseModel], Any]] = {}


def register(name: str, network: type[BaseModel], config: Any) -> None:
    """Makes `create_model(name)` give `network(config)`. Raises `ValueError` for a name that is taken."""
    if name in _REGISTERED:
        raise ValueError(f"two models are called {name!r}")
    _REGISTERED[name] = (network, config)


@cache
def _registered() -> dict[str, tuple[type[BaseModel], Any]]:
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")
    return _REGISTERED


def list_models() -> tuple[str, ...]:
    """Names that `create_model` takes."""
    return tuple(sorted(_registered()))


def registered(name: str) -> tuple[type[BaseModel], Any]:
    """The network of a name and its configuration. Raises `KeyError` for an unknown name."""
    if name not in _registered():
        raise KeyError(f"unknown model {name!r}; known: {', '.join(list_models())}")
    return _registered()[name]


def networks() -> tuple[type[BaseModel], ...]:
    """Every class of network."""
    return tuple(dict.fromkeys(network for network, _ in _registered().values()))


def name_of(network: type[BaseModel], fields: Mapping[str, Any]) -> str:
    """The registered name of a network with these fields in its configuration, or that of its class."""
    for name in list_models():
        of_name, config = registered(name)
        if of_name is network and all(getattr(config, field) == value for field, value in fields.items()):
            return name
    return network.registered_name


def create_model(name: str, **overrides: Any) -> BaseModel:
    """A new, untrained network; `overrides` replace fields of its configuration.

    Raises `KeyError` for an unknown name, `TypeError` for an unknown field and `ValueError` for an impossible value.
    """
    network, config = registered(name)
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()}
    model = network(replace(config, **fields))
    model.registered_name = name
    return model
