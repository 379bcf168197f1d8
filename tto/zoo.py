"""CompressAI's trained networks by name: where their weights are, and one codec for all qualities of a family.

Names are those of CompressAI's zoo, with `-ms-ssim` behind those that were trained for MS-SSIM. Addresses come from the
`compressai` package, and weights lie where it keeps them: in the folder of `torch.hub`.
"""

from __future__ import annotations

import hashlib
import json
import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tto import __version__
from tto.container import MAX_PIXELS, Header, read
from tto.errors import BadArgument, BadCheckpoint, FileError, NotInstalled, TargetMissed, WrongModel
from tto.files import cache_folder, read_bytes, write_atomic

if TYPE_CHECKING:
    from PIL import Image

    from base_models import BaseModel
    from tto.codec import Codec, Result
    from tto.side.coder import SideCoder

MS_SSIM = "-ms-ssim"
QUALITIES = {
    "bmshj2018-factorized": 8,
    "bmshj2018-hyperprior": 8,
    "mbt2018-mean": 8,
    "bmshj2018-hyperprior-vbr": 8,
    "mbt2018-mean-vbr": 8,
    "mbt2018": 8,
    "cheng2020-anchor": 6,
    "cheng2020-attn": 6,
}
"""How many each family was trained for."""
VARIABLE_RATE = "-vbr"
"""Ends the names of families of which one network serves all qualities."""
TIMEOUT = 30.0
"""Seconds without an answer after which a download has failed."""


@dataclass(frozen=True)
class Family:
    """Networks of one kind, one for each quality 1…`qualities` or one for all, trained for mse or ms-ssim."""

    network: str
    metric: str

    @property
    def name(self) -> str:
        return self.network + (MS_SSIM if self.metric == "ms-ssim" else "")

    @property
    def qualities(self) -> int:
        return QUALITIES[self.network]

    @property
    def networks(self) -> int:
        """How many there are; they are called by the qualities that they were trained for, from 1 on."""
        return 1 if self.network.endswith(VARIABLE_RATE) else self.qualities

    def network_for(self, quality: float) -> int:
        """Which network serves a quality."""
        return min(math.floor(quality + 0.5), self.networks)

    def url(self, quality: int) -> str:
        from base_models.third_party import compressai

        if self.networks == 1:
            return compressai("zoo.image_vbr").model_urls[self.network][self.metric]
        return compressai("zoo.image").model_urls[self.network][self.metric][quality]

    def weights(self, quality: int) -> Path:
        """Where its weights are once they have been downloaded."""
        return weights_folder() / self.url(quality).rpartition("/")[2]

    def cached(self) -> tuple[int, ...]:
        """Qualities whose weights are here."""
        if not any(weights_folder().glob("*.pth.tar")):
            return ()  # without a look at CompressAI, which takes seconds to import
        return tuple(quality for quality in range(1, self.qualities + 1) if self.weights(quality).is_file())


def weights_folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def families() -> tuple[Family, ...]:
    all_metrics = (Family(network, metric) for network in QUALITIES for metric in ("mse", "ms-ssim"))
    return tuple(family for family in all_metrics if family.networks > 1 or family.metric == "mse")


def find_family(name: str) -> Family | None:
    return next((family for family in families() if family.name == name), None)


def fetch_weights(family: Family, quality: int) -> Path:
    """Downloads weights unless they are here. Raises `NotInstalled`, which names the file and where to put it."""
    from http.client import HTTPException

    import torch

    path, url = family.weights(quality), family.url(quality)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _socket_timeout(TIMEOUT):
            torch.hub.download_url_to_file(url, str(path), _hash_in(path.name), progress=False)
    except (OSError, HTTPException, RuntimeError) as error:  # of the network, of the answer, of a wrong hash
        reason = " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
        raise NotInstalled(f"cannot download {url} ({reason}): put {path.name} into {path.parent}") from error
    return path


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """What is connected to meanwhile must answer within so many seconds; `torch.hub` itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _hash_in(name: str) -> str:
    """Beginning of the SHA-256 that a published file's name ends with."""
    return name.rpartition("-")[2].partition(".")[0]


def _check_hash(path: Path) -> None:
    """Raises `BadCheckpoint` unless a file is the one that its name tells of, or `FileError`."""
    found, wanted = hashlib.sha256(read_bytes(path)).hexdigest(), _hash_in(path.name)
    if not found.startswith(wanted):
        raise BadCheckpoint(f"{path}: its SHA-256 begins with {found[: len(wanted)]}, not with {wanted}")


def load_network(family: Family, quality: int) -> BaseModel:
    """The network that serves a quality, in eval mode. Weights are compared with the hash in their name the first time.

    Raises `NotInstalled` or `BadCheckpoint`.
    """
    from base_models import CheckpointError, fingerprint, load_checkpoint
    from base_models.compressai_zoo import LAMBDAS

    path = fetch_weights(family, quality)
    rates = {"lambdas": LAMBDAS[: family.qualities], "trained_quality": quality} if family.networks > 1 else {}
    number = family.network_for(quality)
    try:
        if (family.name, number) not in known_fingerprints().values():
            _check_hash(path)
        model = load_checkpoint(path, **rates)
    except (BadCheckpoint, FileError, CheckpointError) as error:
        raise BadCheckpoint(f"{error}; delete it to have it downloaded again") from error
    model.metric = family.metric
    _remember(fingerprint(model), family, number)
    return model


class FamilyCodec:
    """All qualities of a family, with the methods of `Codec`; a network is loaded when its quality is asked for.

    Between two trained qualities the nearer network serves, the better one half-way, with a quantization step that
    makes up for the difference in λ (`base_models.compressai_zoo`). Those of variable rate have one network.
    """

    def __init__(self, family: Family, device: str = "auto"):
        from tto.device import pick_device

        self.family = family
        self.device = pick_device(device)
        self._codecs: dict[int, Codec] = {}

    @property
    def qualities(self) -> int:
        return self.family.qualities

    @property
    def default_quality(self) -> float:
        return 4.0

    @property
    def side_coder(self) -> SideCoder:
        """Networks of the zoo have no side modules."""
        from tto.side.coder import SideCoder

        return SideCoder(None, self.device)

    def checked_quality(self, quality: float) -> float:
        """As `Codec.checked_quality`."""
        return self.at(quality).checked_quality(quality)

    @property
    def fingerprint(self) -> bytes:
        """Of all networks: 8 bytes from the names of their weights, which have their hashes in them."""
        names = " ".join(self.family.weights(number).name for number in range(1, self.family.networks + 1))
        return hashlib.sha256(names.encode()).digest()[:8]

    @property
    def trained_for(self) -> str:
        """As of `Codec`; the names of weights tell the rest."""
        return "lambda as published"

    def trained(self, quality: int) -> Codec:
        """The codec of the network that was trained for this quality."""
        from tto.codec import Codec

        if quality not in self._codecs:
            network = load_network(self.family, quality)
            self._codecs[quality] = Codec(network, str(self.device))
        return self._codecs[quality]

    def at(self, quality: float) -> Codec:
        """The codec that serves a quality. Raises `BadArgument`."""
        if not 1 <= quality <= self.qualities:
            raise BadArgument(f"quality must be between 1 and {self.qualities} for this model, got {quality:g}")
        return self.trained(self.family.network_for(quality))

    def compress(self, image: Any, quality: float | None = None, **options: Any) -> Result:
        """As `Codec.compress`. A target is searched for from the network of `quality`, where that misses from the last
        on the side where the target lies, and once more from the one that is nearest to what was found, if that is
        another; the earlier result stays where this search misses.
        """
        quality = self.default_quality if quality is None else quality
        codec, start = self.at(quality), time.perf_counter()
        try:
            result = codec.compress(image, quality, **options)
        except TargetMissed as missed:
            end = float(self.qualities if missed.is_below else 1)
            if self.at(end) is codec:
                raise
            codec = self.at(end)
            result = codec.compress(image, end, **options)
        stopped = options["callbacks"].should_stop if "callbacks" in options else lambda: False
        found = read(result.data, max_pixels=None).header.quality
        if result.reached is not None and not stopped() and self.at(found) is not codec:
            with suppress(TargetMissed):
                again = self.at(found).compress(image, found, **options)
                result = result if stopped() else again
        return replace(result, seconds=time.perf_counter() - start)

    def decompress(self, data: bytes, *, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
        """As `Codec.decompress`."""
        return self.for_file(data, max_pixels).decompress(data, max_pixels=max_pixels)

    def for_file(self, data: bytes, max_pixels: int | None = MAX_PIXELS) -> Codec:
        """The codec of the network that made a file, which is downloaded where none that is here did.

        Raises `WrongModel`, or as `load_network`.
        """
        header = read(data, max_pixels=max_pixels).header
        if (codec := self.among_those_here(header)) is not None:
            return codec
        family, quality = known_network(header.fingerprint) or (None, 0)
        codec = self.trained(quality if family == self.family else self.family.network_for(header.quality))
        if codec.fingerprint == header.fingerprint:
            return codec
        raise WrongModel(
            f"the file was made with another model (fingerprint {header.fingerprint.hex()}) than those of "
            f"{self.family.name} that are here"
        )

    def among_those_here(self, header: Header) -> Codec | None:
        """The codec of the network that made a file, if it is here. Weights that cannot be read are passed over."""
        first = self.family.network_for(header.quality)
        for quality in sorted(range(1, self.family.networks + 1), key=lambda quality: abs(quality - first)):
            if quality in self._codecs or self.family.weights(quality).is_file():
                with suppress(BadCheckpoint):
                    if self.trained(quality).fingerprint == header.fingerprint:
                        return self.trained(quality)
        return None


# --- who made a file -------------------------------------------------------------------------------


def known_fingerprints() -> dict[str, tuple[str, int]]:
    """Names of families and qualities of the networks that were loaded before, by fingerprint in hexadecimal.

    Of this version: another may have taken other fingerprints.
    """
    try:
        found = json.loads((cache_folder() / "networks.json").read_text())
        networks = found["networks"].items() if found["version"] == __version__ else ()
        return {key: (str(name), int(quality)) for key, (name, quality) in networks}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def known_network(fingerprint: bytes) -> tuple[Family, int] | None:
    """Which network has a fingerprint, if it was loaded before; its weights may be gone."""
    name, quality = known_fingerprints().get(fingerprint.hex(), ("", 0))
    family = find_family(name)
    return (family, quality) if family is not None and 1 <= quality <= family.networks else None


def _remember(fingerprint: bytes, family: Family, quality: int) -> None:
    known = known_fingerprints()
    if known.get(fingerprint.hex()) == (family.name, quality):
        return
    known[fingerprint.hex()] = (family.name, quality)
    with suppress(OSError, FileError):  # a cache that cannot be written is no cache
        cache_folder().mkdir(parents=True, exist_ok=True)
        content = json.dumps({"version": __version__, "networks": known}, indent=1)
        write_atomic(cache_folder() / "networks.json", content.encode())


def find_network(fingerprint: bytes) -> tuple[Family, int] | None:
    """Which network in the cache has a fingerprint; those that were never loaded are loaded now. None where none has.

    Weights that cannot be read are passed over.
    """
    from base_models import fingerprint as fingerprint_of

    known = known_network(fingerprint)
    if known is not None and known[0].weights(known[1]).is_file():
        return known
    seen = set(known_fingerprints().values())
    for family in families():
        for quality in set(map(family.network_for, family.cached())):
            if (family.name, quality) not in seen:
                with suppress(BadCheckpoint):
                    if fingerprint_of(load_network(family, quality)) == fingerprint:
                        return family, quality
    return None
