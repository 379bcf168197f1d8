"""Which trained models there are, and how a name or a path becomes one."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tto.errors import BadArgument, BadCheckpoint
from tto.hub import PREFIX, parse_address, pulled_models, weights_path, where_to_look
from tto.zoo import families, find_family, known_network

if TYPE_CHECKING:
    from torch import nn

    from base_models import BaseModel
    from tto.side.weights import SideModules

LOG = logging.getLogger(__name__)
DEFAULT_MODEL = "dcae-small"
DEFAULT_LAMBDA = 0.013
"""Rate–distortion weight of a network that does not say with which it was trained."""
TRAINED_FOR = ("mse", "ms-ssim")
"""Metrics that networks are trained for."""
WEIGHTS_SUFFIX = ".safetensors"


def weights_folder() -> Path:
    """The folder of the weights that come with the package."""
    found = find_spec("base_models")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "weights"


def shipped_models() -> tuple[str, ...]:
    """Names of the models whose weights come with the package."""
    return tuple(sorted(path.stem for path in weights_folder().glob(f"*{WEIGHTS_SUFFIX}")))


@dataclass(frozen=True)
class ListedModel:
    """What is known of a shipped model without its network: fingerprint in hexadecimal, strides as of `BaseModel`."""

    fingerprint: str
    stride: int
    y_stride: int


def listed_models() -> dict[str, ListedModel]:
    """By name, from the list beside the weights."""
    return {name: ListedModel(**known) for name, known in _listed("fingerprints.json").items()}


def checkpoint_path(model: str) -> Path:
    """A shipped model's name, an address `hf://OWNER/NAME[@REVISION]`, or a path of a checkpoint → path.

    Raises `BadArgument`, or for an address as `tto.hub.weights_path`.
    """
    if model in shipped_models():
        return weights_folder() / f"{model}{WEIGHTS_SUFFIX}"
    if model.startswith(PREFIX):
        return weights_path(parse_address(model))
    if Path(model).is_file():
        return Path(model)
    raise BadArgument(unknown_model(model))


def check_model(model: str) -> None:
    """Raises `BadArgument` unless it is a shipped model's name, a checkpoint's path, or a family's name."""
    if find_family(model) is None:
        checkpoint_path(model)


def is_name(model: str) -> bool:
    """Whether a shipped model, a family or an address is meant, whatever files of that name there are."""
    return model in shipped_models() or find_family(model) is not None or model.startswith(PREFIX)


def unknown_model(model: str) -> str:
    """What to say of a name that no trained model has."""
    from base_models import list_models

    if model in list_models():
        return f"{model} is a network without weights here: give a checkpoint's path ('tto models convert' makes one)"
    names = (*shipped_models(), *(family.name for family in families()))
    near = get_close_matches(model, names, n=3)
    meant = f"did you mean {' or '.join(near)}" if near else f"there are {', '.join(names)}"
    return f"no model {model!r}: {meant}; or give a checkpoint's path or hf://OWNER/NAME"


def known_model(fingerprint: bytes) -> str | None:
    """The name, for -m, of a shipped or pulled model, or of one of CompressAI's zoo that was ever loaded here.

    No network is loaded.
    """
    names = {known.fingerprint: name for name, known in listed_models().items()}
    wanted, known = fingerprint.hex(), known_network(fingerprint)
    return names.get(wanted) or pulled_models().get(wanted) or (known and known[0].name)


def how_to_get(fingerprint: bytes) -> str:
    """What to do about a file whose model is not here: is it CompressAI's, of an earlier version, or to be found?"""
    if (known := known_network(fingerprint)) is not None:
        name = known[0].name
        return f"it is {name}, which -m {name} (models=[{name!r}]) downloads"
    zoo = "if it is one of CompressAI's ('tto models list'), -m NAME downloads it"
    return _listed("earlier.json").get(fingerprint.hex()) or f"{where_to_look(fingerprint)}; {zoo}"


def _listed(name: str) -> dict[str, Any]:
    path = weights_folder() / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def load_model(model: str) -> BaseModel:
    """The network with its weights, in eval mode on the CPU. One that does not say what it was trained for has the one
    rate `DEFAULT_LAMBDA`, which is warned of. Raises `BadArgument` or `BadCheckpoint`.
    """
    from base_models import CheckpointError, load_checkpoint

    path = checkpoint_path(model)
    try:
        loaded = load_checkpoint(path, lambdas=(DEFAULT_LAMBDA,))
    except CheckpointError as error:
        raise BadCheckpoint(str(error)) from error
    if path.suffix != WEIGHTS_SUFFIX and loaded.qualities == 1:
        LOG.warning(
            "%s: λ = %g and MSE are assumed; 'tto models convert --lambda' writes what it was trained for",
            path,
            DEFAULT_LAMBDA,
        )
    return loaded


def as_base_model(network: nn.Module, lambda_: float | None = None, metric: str | None = None) -> BaseModel:
    """A copy of a network at hand as a frozen base model in eval mode, with coding tables: a base model, or one of
    CompressAI's, which then has one rate, `lambda_` (`DEFAULT_LAMBDA`), or the rates of its gains, and was trained for
    `metric` (mse).

    Raises `BadArgument` where it is of no family that is known or says itself what is given, or `BadCheckpoint`.
    """
    from base_models import BaseModel, CheckpointError, create_model, load_weights
    from base_models.checkpoints import recognize

    if metric not in (None, *TRAINED_FOR):
        raise BadArgument(f"unknown metric {metric!r}: networks are trained for {' or '.join(TRAINED_FOR)}")
    if isinstance(network, BaseModel):
        if not (lambda_ is metric is None):
            raise BadArgument("a base model says itself what it was trained for, without lambda_ and metric")
        copied = copy.deepcopy(network).eval().requires_grad_(False)
        if not all(prior.has_tables for prior in copied.entropy_models()):
            copied.update_tables()
        return copied
    state = network.state_dict()
    try:
        name, sizes = recognize(state)
    except CheckpointError as error:
        raise BadArgument(f"{type(network).__name__}: {error}") from None
    if "lambdas" in sizes and lambda_ is not None:
        raise BadArgument(f"{type(network).__name__}: its gains say its rates, without lambda_")
    if "lambdas" not in sizes and lambda_ is metric is None:
        LOG.warning(
            "%s: λ = %g and MSE are assumed; lambda_ and metric say what it was trained for",
            type(network).__name__,
            DEFAULT_LAMBDA,
        )
    rates = {"lambdas": (DEFAULT_LAMBDA if lambda_ is None else lambda_,)}
    try:
        model = load_weights(create_model(name, **(rates | sizes)), state)
    except CheckpointError as error:
        raise BadCheckpoint(str(error)) from error
    except ValueError as error:
        raise BadArgument(f"{type(network).__name__}: its configuration cannot be: {error}") from None
    model.metric = metric or model.metric
    return model


def load_side(model: str) -> SideModules | None:
    """The side modules of a model that `load_model` takes, or None where it has none. Raises as `load_model`."""
    from base_models import CheckpointError
    from tto.side.weights import load_side_modules

    try:
        return load_side_modules(checkpoint_path(model))
    except CheckpointError as error:
        raise BadCheckpoint(str(error)) from error
