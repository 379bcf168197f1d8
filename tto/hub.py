"""Weights shared through the Hugging Face hub: one safetensors file and a model card, never a pickle.

An address is `hf://OWNER/NAME[@REVISION]`. What was pulled lies in that hub's own cache (`HF_HOME`), is used from there
without asking the network, and is asked for anew only by another `pull`. `HF_ENDPOINT` names another hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tto.errors import BadArgument, HubError
from tto.packages import require

if TYPE_CHECKING:
    from base_models import BaseModel

PREFIX = "hf://"
WEIGHTS = "model.safetensors"
CARD = "README.md"
TAG = "tto-"
"""A model's card has a tag of this and its fingerprint, by which the hub finds it."""
_ADDRESS = re.compile(rf"(?:{PREFIX})?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Address:
    """repo: OWNER/NAME; revision: a branch, tag or commit, None for the newest."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def parse_address(text: str) -> Address:
    """`[hf://]OWNER/NAME[@REVISION]`. Raises `BadArgument`."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise BadArgument(f"{text} is no address of a shared model: OWNER/NAME, or OWNER/NAME@REVISION")
    return Address(match[1], match[2])


def weights_path(address: Address) -> Path:
    """The weights as they were last pulled; pulled now if they never were. Raises `HubError` or `NotInstalled`."""
    require("huggingface_hub", "hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(address.repo, WEIGHTS, revision=address.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return pull(address)
    except _refusals() as error:
        raise HubError(f"cannot use {address}: {_reason(error)}") from error


def pull(address: Address) -> Path:
    """Downloads weights and card, or what of them is new; the weights' path. Raises `HubError` or `NotInstalled`."""
    require("huggingface_hub", "hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()
    logging.set_verbosity_error()  # it tells of every try
    try:
        hf_hub_download(address.repo, CARD, revision=address.revision)
        return Path(hf_hub_download(address.repo, WEIGHTS, revision=address.revision))
    except LocalEntryNotFoundError as error:
        raise HubError(f"{address} is not here, and the hub cannot be reached") from error
    except EntryNotFoundError as error:
        raise HubError(
            f"{address} holds no {WEIGHTS} and {CARD}. Pickled checkpoints are not loaded from a hub: download yours "
            "and make it into such a file with 'tto models convert'"
        ) from error
    except _refusals() as error:
        raise HubError(f"cannot pull {address}: {_reason(error)}") from error


def push(path: Path, model: BaseModel, address: Address, figures: str = "", private: bool = False) -> str:
    """Uploads tto's own weights file at `path`, which holds `model`, with a card; the page's address.

    figures: measured, in Markdown. Needs the token of `hf auth login`. Raises `HubError`, `BadArgument` or
    `NotInstalled`.
    """
    require("huggingface_hub", "hub")
    from huggingface_hub import HfApi

    if path.suffix != ".safetensors":
        raise BadArgument(f"{path} is no .safetensors file: convert it with 'tto models convert' first")
    with TemporaryDirectory() as folder:
        (Path(folder) / CARD).write_text(model_card(model, address, figures), encoding="utf-8")
        (Path(folder) / WEIGHTS).write_bytes(path.read_bytes())
        try:
            api = HfApi()
            page = api.create_repo(address.repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=address.repo, folder_path=folder, revision=address.revision)
        except _refusals() as error:
            raise HubError(f"cannot push to {address}: {_reason(error)}") from error
    return str(page)


def model_card(model: BaseModel, address: Address, figures: str = "") -> str:
    """The page that says what a model is, how to use it and how it was measured."""
    from huggingface_hub import ModelCardData

    from base_models import fingerprint

    made = fingerprint(model).hex()
    tags = ["image-compression", "tto", f"{TAG}{made}"]
    metadata = ModelCardData(library_name="tto", pipeline_tag="image-to-image", tags=tags).to_yaml()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lambdas = [f"{model.lambda_at(quality):g}" for quality in range(1, model.qualities + 1)]
    return f"""---
{metadata}
---
# {address.repo.partition("/")[2]}

A learned image codec for [tto](https://pypi.org/project/tto/): network `{model.registered_name}`, {parameters:,}
parameters, λ = {", ".join(lambdas)} for qualities from 1, fingerprint `{made}`.

    tto models pull {address.repo}
    tto compress photo.png -m {PREFIX}{address.repo}
    tto decompress photo.tto -m {PREFIX}{address.repo}

    codec = tto.Codec.from_pretrained("{address.repo}")

## Figures

{figures.strip() or "None were given with these weights."}
"""


def where_to_look(fingerprint: bytes) -> str:
    """What to do about a file whose model is not known here."""
    from os import environ

    hub, tag = environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/"), f"{TAG}{fingerprint.hex()}"
    return (
        f"give its weights with -m FILE (models=[FILE]), or look for a shared model with the tag {tag} at "
        f"{hub}/models?other={tag} and fetch it with 'tto models pull OWNER/NAME'"
    )


def pulled_models() -> dict[str, str]:
    """Fingerprint in hexadecimal → address, of what `pull` brought here, by the tags of the cards."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return {}
    found = {}
    for card in sorted(Path(HF_HUB_CACHE).glob(f"models--*--*/snapshots/*/{CARD}")):
        tag = re.search(rf"^- {TAG}([0-9a-f]{{16}})$", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if tag and (card.parent / WEIGHTS).is_file():
            owner, name = card.parents[2].name.removeprefix("models--").split("--", 1)
            found[tag[1]] = str(Address(f"{owner}/{name}", card.parent.name))
    return found


def _refusals() -> tuple[type[Exception], ...]:
    """What the hub's client raises: its own errors, and of the package it connects by, whichever that is."""
    from huggingface_hub import errors

    return OSError, ValueError, errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]


def _reason(error: Exception) -> str:
    """The first line of what the hub's client says, without the hints that follow."""
    response = getattr(error, "response", None)
    message = getattr(error, "server_message", None)
    if response is not None and message:
        return f"{response.status_code} {message}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
