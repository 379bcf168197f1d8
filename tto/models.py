"""Which trained models there are, and how a name or a path becomes one."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tto.errors import BadArgument, BadCheckpoint
from tto.hub import PREFIX, parse_address, pulled_models, weights_path

if TYPE_CHECKING:
    from base_models import BaseModel
    from tto.side.weights import SideModules

DEFAULT_MODEL = "dcae-small"
WEIGHTS_SUFFIX = ".safetensors"


def weights_folder() -> Path:
    """The folder of the weights that come with the package."""
    found = find_spec("base_models")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / "weights"


def shipped_models() -> tuple[str, ...]:
    """Names of the models whose weights come with the package."""
    return tuple(sorted(path.stem for path in weights_folder().glob(f"*{WEIGHTS_SUFFIX}")))


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
    raise BadArgument(
        f"no model {model!r}: shipped are {', '.join(shipped_models())}; or give a path or hf://OWNER/NAME"
    )


def known_model(fingerprint: bytes) -> str | None:
    """A shipped or pulled model's name for -m, by its fingerprint; no network is loaded."""
    listed = weights_folder() / "fingerprints.json"
    shipped = json.loads(listed.read_text()) if listed.is_file() else {}
    names = {made: name for name, made in shipped.items()}
    return names.get(fingerprint.hex()) or pulled_models().get(fingerprint.hex())


def load_model(model: str) -> BaseModel:
    """The network with its weights, in eval mode on the CPU. Raises `BadArgument` or `BadCheckpoint`."""
    from base_models import CheckpointError, load_checkpoint

    path = checkpoint_path(model)
    try:
        return load_checkpoint(path)
    except CheckpointError as error:
        raise BadCheckpoint(str(error)) from error


def load_side(model: str) -> SideModules | None:
    """The side modules of a model that `load_model` takes, or None where it has none. Raises as `load_model`."""
    from base_models import CheckpointError
    from tto.side.weights import load_side_modules

    try:
        return load_side_modules(checkpoint_path(model))
    except CheckpointError as error:
        raise BadCheckpoint(str(error)) from error
