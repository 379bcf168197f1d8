"""What `tto compress` does with each picture, here or in a worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tto.cli.bars import Bars
from tto.cli.jobs import Made, Parcel, Record
from tto.cli.manifest import Making
from tto.cli.naming import BIN_SUFFIX, STREAM, Job
from tto.cli.refining import row_of
from tto.errors import BadArgument, FileError, NotEnoughMemory
from tto.interruption import Interruption

if TYPE_CHECKING:
    from tto.codec import AnyCodec, Result
    from tto.image import Picture
    from tto.request import Request

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compression:
    """How pictures are compressed. convert: as for `load_picture`; explain: folder for drawings, in which those of an
    output have the place that it has in `outputs`; fingerprint: of the model and its side modules; trained_for: as
    `Codec` has it.
    """

    model: str
    device: str
    request: Request
    convert: bool
    explain: Path | None
    outputs: Path | None
    fingerprint: bytes
    trained_for: str

    @property
    def making(self) -> Making:
        """What decides the bytes; of a region its pixels' digest."""
        asked: dict[str, Any] = {field.name: getattr(self.request, field.name) for field in fields(self.request)}
        if asked["roi"] is not None:
            asked["roi"] = sha256(asked["roi"].rgb.tobytes()).hexdigest()
        more = {"convert": self.convert, "trained_for": self.trained_for}
        return Making(self.fingerprint.hex(), asked | more)

    def start(self, bars: Bars | None = None, interruption: Interruption | None = None) -> Callable[[Parcel], Made]:
        """Load the model; what is returned compresses one picture, shows its steps, and ends early when interrupted."""
        from tto.api import cached_codec

        codec = cached_codec(self.model, self.device)
        return _Work(self, codec, bars or Bars(0), interruption or Interruption()).compress


@dataclass(frozen=True)
class _Work:
    how: Compression
    codec: AnyCodec
    bars: Bars
    interruption: Interruption

    def compress(self, parcel: Parcel) -> Made:
        from tto.image import load_picture

        job = parcel.job
        picture = load_picture(parcel.data, self.how.convert)
        coded = self._published if job.target.suffix.lower() == BIN_SUFFIX else self._coded
        result = coded(job, picture)
        drawings = {}
        if self.how.explain is not None:
            try:
                drawings = self._drawn(self.how.explain, job, picture, result)
            except NotEnoughMemory as error:  # the file is made, and worth more
                LOG.warning("%s: no drawings: %s", job.input, error)
        if self.how.request.budget is not None and result.steps == 0:
            LOG.warning("%s: %g s are too short to refine it, so it is not refined", job.input, self.how.request.budget)
        drawn = {"drawings": [*map(str, drawings)]} if drawings else {}
        return Made(record_of(result) | self._measured(picture, result) | drawn, {job.target: result.data} | drawings)

    def _coded(self, job: Job, picture: Picture) -> Result:
        from tto.refine.state import Callbacks

        with self.bars.steps(f"coding {job.input}") as show:
            callbacks = Callbacks(lambda progress: show(row_of(progress)), self.interruption.asked)
            return self.codec.compress(picture, callbacks=callbacks, **vars(self.how.request))

    def _published(self, job: Job, picture: Picture) -> Result:
        from tto.published_bin import compress_to_bin

        request = self.how.request
        if request.refines or request.searches:
            raise BadArgument("published .bin files are not refined, and have the one rate of their model")
        if self.how.explain is not None:
            raise BadArgument("--explain draws .tto files, not published .bin files")
        if not (picture.alpha is picture.icc is picture.exif is picture.xmp is None):
            LOG.warning("%s: a .bin file keeps colours alone: alpha and metadata are left out", job.output)
        return compress_to_bin(self.codec, picture, request.lambda_)

    def _drawn(self, folder: Path, job: Job, picture: Picture, result: Result) -> dict[Path, bytes]:
        from tto.explain import explain

        drawings = explain(self.codec, picture, result.data, result.base_qp)
        return {drawing_path(folder, self.how.outputs, job, name): data for name, data in drawings.items()}

    def _measured(self, picture: Picture, result: Result) -> Record:
        """What was aimed at, by the request or by the network's training, where that is not PSNR."""
        from tto.image import load_picture
        from tto.metrics import ms_ssim

        request = self.how.request
        record = {} if request.target_ssimulacra2 is None else {"ssimulacra2": result.reached}
        if "ms-ssim" in (request.metric, result.metric) or request.target_ms_ssim is not None:
            record["ms_ssim"] = ms_ssim(picture.rgb, load_picture(result.image).rgb)
        return record


def drawing_path(folder: Path, outputs: Path | None, job: Job, name: str) -> Path:
    """Where a drawing goes. folder, outputs: as `explain` and `outputs` of `Compression`."""
    place = Path("stdout")
    if job.output != STREAM:
        place = Path(os.path.relpath(job.target, outputs or job.target.parent))
    return folder / f"{place.with_suffix('')}-{name}"


def drawings_checked(
    folder: Path, outputs: Path | None, sources: Sequence[Path], overwrite: bool
) -> Callable[[Job], None]:
    """What refuses a job that could draw over one of the sources, or, without `overwrite`, over any file."""
    from tto.explain import DRAWINGS

    kept = {os.path.realpath(source) for source in sources if source != STREAM}

    def check(job: Job) -> None:
        for path in (drawing_path(folder, outputs, job, f"{name}.png") for name in DRAWINGS):
            if os.path.realpath(path) in kept:
                raise BadArgument(f"{path} is an input: give another folder with --explain")
            if not overwrite and path.exists():
                raise FileError(f"{path} exists and --no-overwrite is given")

    return check


def record_of(result: Result) -> Record:
    names = ("width", "height", "bytes", "bpp", "psnr", "J", "base_bytes", "base_psnr", "base_J", "steps", "seconds")
    return {name: getattr(result, name) for name in names}
