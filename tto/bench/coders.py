"""What the bench measures: classical and learned codecs behind one small interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

import tto
from tto.bench.anchors import ANCHORS
from tto.bench.rows import series_label
from tto.errors import BadArgument

if TYPE_CHECKING:
    from tto.codec import Codec

UNDECIDING = ("bench", "cli", "train")
"""Folders of the package on which neither the bytes of a file nor its pixels depend."""


@dataclass(frozen=True)
class Encoded:
    """One compressed image; figures that a codec does not have are `nan`. Names as in `Row`."""

    data: bytes = field(repr=False)
    J: float = math.nan
    base_bytes: float = math.nan
    base_psnr: float = math.nan
    base_J: float = math.nan
    steps: int = 0


class Coder(Protocol):
    """An encoder with all its settings, and the decoder of its files."""

    def encode(self, image: Image.Image, quality: float) -> Encoded: ...

    def decode(self, data: bytes) -> Image.Image: ...


@dataclass(frozen=True)
class Series:
    """One codec at one effort: a curve of the plot.

    codec: its name in tables; source: the anchor's name, or the model's name or checkpoint; effort: empty for
    anchors; device: cpu or cuda; settings and version: see `Identity`; suffix: of the files.
    """

    codec: str
    source: str
    effort: str
    qualities: tuple[float, ...]
    device: str
    settings: str
    version: str
    suffix: str

    @property
    def label(self) -> str:
        return series_label(self.codec, self.effort)

    def open(self, device: str) -> Coder:
        """The coder itself; a model is loaded once per process."""
        if self.source in ANCHORS:
            return AnchorCoder(self.source)
        return ModelCoder(load_model_once(self.source, device), self.effort)


@dataclass(frozen=True)
class AnchorCoder:
    name: str

    def encode(self, image: Image.Image, quality: float) -> Encoded:
        return Encoded(ANCHORS[self.name].encode(image, quality))

    def decode(self, data: bytes) -> Image.Image:
        return ANCHORS[self.name].decode(data)


@dataclass(frozen=True)
class ModelCoder:
    """effort: one of the codec's names, or a number of steps as text."""

    codec: Codec
    effort: str

    def encode(self, image: Image.Image, quality: float) -> Encoded:
        result = self.codec.compress(image, quality, **effort_options(self.effort))
        return Encoded(result.data, result.J, result.base_bytes, result.base_psnr, result.base_J, result.steps)

    def decode(self, data: bytes) -> Image.Image:
        return self.codec.decompress(data).convert("RGB")


def effort_options(effort: str) -> dict[str, Any]:
    """What `Codec.compress` is told: an effort's name, or a number of steps. Raises `BadArgument`."""
    from tto.request import Request

    options: dict[str, Any] = {"steps": int(effort)} if effort.isdigit() else {"effort": effort}
    Request(**options)  # refuses what it does not know
    return options


@cache
def load_model_once(model: str, device: str) -> Codec:
    return tto.load_codec(model, device)


def anchor_series(names: Sequence[str]) -> list[Series]:
    """Anchors over their whole ladders. Raises `BadArgument` for an unknown one, or one this Pillow lacks."""
    for name in names:
        if name not in ANCHORS:
            raise BadArgument(f"unknown anchor {name!r}: choose from {', '.join(ANCHORS)}, or none")
        if not ANCHORS[name].available():
            raise BadArgument(f"this Pillow was built without {name}; leave it out of --anchors")
    anchors = [ANCHORS[name] for name in dict.fromkeys(names)]
    return [
        Series(
            codec=anchor.name,
            source=anchor.name,
            effort="",
            qualities=anchor.ladder,
            device="cpu",
            settings=anchor.settings,
            version=anchor.version(),
            suffix=anchor.suffix,
        )
        for anchor in anchors
    ]


def model_series(
    models: Sequence[str], efforts: Sequence[str], qualities: Sequence[float], device: str
) -> list[Series]:
    """Every model at every effort. A model of one rate is measured at that rate alone.

    Raises `BadArgument` for an unknown model or effort, two models of one name, or a quality outside a
    model's range.
    """
    for effort in efforts:
        effort_options(effort)
    series = []
    for model in dict.fromkeys(models):
        codec = load_model_once(model, device)
        for quality in qualities:
            if codec.qualities > 1 and not 1 <= quality <= codec.qualities:
                raise BadArgument(f"quality must be between 1 and {codec.qualities} for {model}, got {quality:g}")
        ladder = tuple(sorted(set(qualities))) if codec.qualities > 1 else (1.0,)
        weights = codec.fingerprint + codec.side_coder.fingerprint
        version = f"tto {source_version()}, weights {weights.hex()}"
        name = Path(model).stem if Path(model).is_file() else model
        for effort in dict.fromkeys(efforts):
            series.append(
                Series(
                    codec=name,
                    source=model,
                    effort=effort,
                    qualities=ladder,
                    device=codec.device.type,
                    settings=f"on {codec.device.type}",  # another kind of device gives other bytes
                    version=version,
                    suffix=".tto",
                )
            )
    labels = [one.label for one in series]
    for one in series:
        if labels.count(one.label) > 1 or one.codec in ANCHORS:
            raise BadArgument(f"two codecs are called {one.codec}: rename a checkpoint")
    return series


@cache
def source_version() -> str:
    """Version and a digest of the sources that decide bytes and pixels, for example `0.1.0+1f3a9c02`.

    A change of the program therefore measures again what it may have changed.
    """
    digest = sha256()
    for path in sorted(_sources()):
        digest.update(path.name.encode() + path.read_bytes())
    return f"{tto.__version__}+{digest.hexdigest()[:8]}"


def _sources() -> list[Path]:
    import base_models

    package, models = Path(tto.__file__).parent, Path(base_models.__file__).parent
    deciding = (path for path in package.glob("**/*.py") if path.relative_to(package).parts[0] not in UNDECIDING)
    return [*deciding, *models.glob("**/*.py")]
