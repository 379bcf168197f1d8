"""What the bench measures: classical and learned codecs behind one small interface."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image

import tto
from tto.bench.anchors import ANCHORS
from tto.bench.encoded import Encoded
from tto.bench.rows import series_label
from tto.bench.text import printable
from tto.device import descends_in_bfloat16
from tto.errors import BadArgument
from tto.models import WEIGHTS_SUFFIX, is_name

if TYPE_CHECKING:
    from tto.codec import AnyCodec

USUAL_QUALITIES = (2.0, 4.0, 6.0, 8.0)
UNDECIDING = ("bench", "cli", "train")
"""Folders of the package on which neither the bytes of a file nor its pixels depend."""
SCORING = ("metrics.py", "ssimulacra2.py", "perceptual.py", "bench/scores.py", "bench/vmaf.py")
"""Files of the package on which scores of pixels depend."""


class Coder(Protocol):
    """An encoder with all its settings, and the decoder of its files. device: where they compute, by PyTorch's name."""

    @property
    def device(self) -> str: ...

    def encode(self, image: Image.Image, quality: float) -> Encoded: ...

    def decode(self, data: bytes) -> Image.Image: ...


@dataclass(frozen=True)
class Rung:
    """One point of a curve. quality: its name; source: the anchor's name, or the model's name or checkpoint; at: the
    quality that this is asked for.
    """

    quality: float
    source: str
    at: float


@dataclass(frozen=True)
class Series:
    """One codec at one effort: a curve of the plot.

    codec: its name in tables; effort: empty for anchors; settings and version: see `Identity`; suffix: of the files.
    """

    codec: str
    effort: str
    rungs: tuple[Rung, ...]
    settings: str
    version: str
    suffix: str

    @property
    def label(self) -> str:
        return series_label(self.codec, self.effort)

    @property
    def qualities(self) -> tuple[float, ...]:
        return tuple(rung.quality for rung in self.rungs)

    def rung(self, quality: float) -> Rung:
        return next(rung for rung in self.rungs if rung.quality == quality)

    def open(self, rung: Rung, device: str) -> Coder:
        """The coder itself, its network loaded; once per process."""
        if rung.source in ANCHORS:
            return ANCHORS[rung.source]
        return ModelCoder(load_model_once(rung.source, device).at(rung.at), self.effort)


@dataclass(frozen=True)
class ModelCoder:
    """effort: one of the codec's names, or a number of steps as text."""

    codec: AnyCodec
    effort: str

    @property
    def device(self) -> str:
        return str(self.codec.device)

    def encode(self, image: Image.Image, quality: float) -> Encoded:
        result = self.codec.compress(image, quality, **effort_options(self.effort))
        parameters = sum(parameter.numel() for parameter in self.codec.at(quality).model.parameters())
        return Encoded(
            result.data, result.J, result.base_bytes, result.base_psnr, result.base_J, result.steps, parameters
        )

    def decode(self, data: bytes) -> Image.Image:
        return self.codec.decompress(data).convert("RGB")


def effort_options(effort: str) -> dict[str, Any]:
    """What `Codec.compress` is told: an effort's name, or a number of steps. Raises `BadArgument`."""
    from tto.request import Request

    options: dict[str, Any] = {"steps": int(effort)} if effort.isdigit() else {"effort": effort}
    Request(**options)  # refuses what it does not know
    return options


@cache
def load_model_once(model: str, device: str) -> AnyCodec:
    return tto.load_codec(model, device)


def missing_anchors(names: Sequence[str]) -> dict[str, str]:
    """Of these anchors the ones that this machine lacks, with the reason in one line. Raises `BadArgument` for an
    unknown one.
    """
    for name in names:
        if name not in ANCHORS:
            raise BadArgument(f"unknown anchor {name!r}: choose from {', '.join(ANCHORS)}; all; or none")
    reasons = {name: ANCHORS[name].missing() for name in names}
    return {name: reason for name, reason in reasons.items() if reason}


def anchor_series(names: Sequence[str]) -> list[Series]:
    """Anchors that this machine has, over their whole ladders."""
    anchors = [ANCHORS[name] for name in dict.fromkeys(names)]
    return [
        Series(
            codec=anchor.name,
            effort="",
            rungs=tuple(Rung(quality, anchor.name, quality) for quality in anchor.ladder),
            settings=anchor.described(),
            version=anchor.version(),
            suffix=anchor.suffix,
        )
        for anchor in anchors
    ]


def model_series(
    models: Sequence[str], efforts: Sequence[str], qualities: Sequence[float] | None, device: str
) -> list[Series]:
    """Every model at every effort, at these qualities, if it is an empty list at every whole one that it has, or for
    None at those of `USUAL_QUALITIES` that it has.

    A model of one rate is measured at that rate alone; a folder of such is one codec, whose qualities are its
    checkpoints by rising λ.

    Raises `BadArgument` for an unknown model or effort, two models of one name, or a quality outside a
    model's range.
    """
    for effort in efforts:
        effort_options(effort)
    series = []
    for model in dict.fromkeys(models):
        rungs = _rungs(model, qualities, device)
        codecs = [load_model_once(source, device) for source in dict.fromkeys(rung.source for rung in rungs)]
        weights = "; ".join(map(weights_of, codecs))
        for effort in dict.fromkeys(efforts):
            series.append(
                Series(
                    codec=printable(_name_of(model)),
                    effort=effort,
                    rungs=rungs,
                    settings=_settings(codecs[0].device.type),
                    version=f"tto {source_version()}, weights {weights}",
                    suffix=".tto",
                )
            )
    labels = [one.label for one in series]
    for one in series:
        if labels.count(one.label) > 1 or one.codec in ANCHORS:
            raise BadArgument(f"two codecs are called {one.codec}: rename a checkpoint")
    return series


def computed_on(series: Sequence[Series], device: str) -> list[Series]:
    """The same, its models on another kind of device, which gives other bytes."""
    return [replace(one, settings=_settings(device)) if one.effort else one for one in series]


def weights_of(codec: AnyCodec) -> str:
    """Fingerprints of its network and side modules, in hexadecimal, and what it was trained for."""
    return f"{(codec.fingerprint + codec.side_coder.fingerprint).hex()}, {codec.trained_for}"


def _settings(device: str) -> str:
    """What decides refined bytes beside weights and program; of GPUs the kind alone."""
    reduced = device == "cpu" and descends_in_bfloat16(torch.device(device))
    return f"on {device}, PyTorch {torch.__version__}" + ", gradients in bfloat16" * reduced


def _name_of(model: str) -> str:
    if is_name(model):
        return model
    return Path(model).resolve().name if Path(model).is_dir() else Path(model).stem


def _rungs(model: str, qualities: Sequence[float] | None, device: str) -> tuple[Rung, ...]:
    if not is_name(model) and Path(model).is_dir():
        return _rungs_of_folder(Path(model), device)
    codec = load_model_once(model, device)
    if codec.qualities == 1:
        return (Rung(1.0, model, 1.0),)
    if qualities is None:
        qualities = [quality for quality in USUAL_QUALITIES if quality <= codec.qualities]
    qualities = qualities or range(1, codec.qualities + 1)
    for quality in qualities:
        if not 1 <= quality <= codec.qualities:
            raise BadArgument(f"quality must be between 1 and {codec.qualities} for {model}, got {quality:g}")
    return tuple(Rung(float(quality), model, float(quality)) for quality in sorted(set(qualities)))


def _rungs_of_folder(folder: Path, device: str) -> tuple[Rung, ...]:
    """Checkpoints of one rate each, by rising λ."""
    lambdas = {}
    for path in sorted(folder.glob(f"*{WEIGHTS_SUFFIX}")):
        codec = load_model_once(str(path), device)
        if codec.qualities != 1:
            raise BadArgument(f"{path} has {codec.qualities} rates: give it by itself, not in a folder")
        lambdas[str(path)] = codec.at(1.0).model.lambda_at(1.0)
    if not lambdas:
        raise BadArgument(f"no {WEIGHTS_SUFFIX} checkpoints in the folder {folder}")
    return tuple(Rung(float(i), source, 1.0) for i, source in enumerate(sorted(lambdas, key=lambdas.__getitem__), 1))


@cache
def source_version() -> str:
    """Version and a digest of the sources that decide bytes and pixels, for example `0.1.0+1f3a9c02`.

    A change of the program therefore measures again what it may have changed.
    """
    return f"{tto.__version__}+{_digest(_sources())}"


@cache
def scoring_version() -> str:
    """A digest of the sources that score. A change of them therefore scores again what is there."""
    return _digest(Path(tto.__file__).parent / name for name in SCORING)


def _digest(paths: Iterable[Path]) -> str:
    digest = sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _sources() -> list[Path]:
    import base_models

    package, models = Path(tto.__file__).parent, Path(base_models.__file__).parent
    deciding = (path for path in package.glob("**/*.py") if path.relative_to(package).parts[0] not in UNDECIDING)
    return [*deciding, *models.glob("**/*.py")]
