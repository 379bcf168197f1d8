"""One image's way through tto.

compress:    picture → tensor → g_a, h_a → refinement → sections (latent coding) → container bytes
decompress:  container bytes → sections → ŷ → g_s → picture
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from base_models import BaseModel, LatentShapes, fingerprint
from tto.attachments import pack_attachments, unpack_attachments
from tto.container import (
    MAX_PIXELS,
    NEUTRAL_QP,
    Container,
    Flags,
    Header,
    check_size,
    quantize_quality,
    read,
    write,
)
from tto.device import descends_in_bfloat16, make_repeatable, pick_device
from tto.errors import BadArgument, BadCheckpoint, CorruptFile, VerificationFailed, WrongModel
from tto.hub import PREFIX, parse_address
from tto.image import Picture, load_picture
from tto.latent_coding import LatentCoder
from tto.memory import Room, memory_for
from tto.metrics import MS_SSIM_MIN_SIDE, psnr
from tto.models import DEFAULT_MODEL, as_base_model, load_model, load_side
from tto.padding import padded_size, to_uint8
from tto.reconstruction import Frame, analyse, reconstruct
from tto.refine.batch import Batch
from tto.refine.distortion import Distortion, load_weights, make_distortion, name_of
from tto.refine.engine import Refinement, refine
from tto.refine.plan import make_plan
from tto.refine.problem import Problem
from tto.refine.state import Callbacks
from tto.refine.targets import make_target, search
from tto.request import Request
from tto.side.coder import SideCoder
from tto.side.side import NO_SIDE, Side
from tto.zoo import FamilyCodec, find_family

if TYPE_CHECKING:
    from tto.image import PictureLike
    from tto.perceptual import Distance
    from tto.side.weights import SideModules

DEFAULT_QUALITY = 4.0


@dataclass(frozen=True)
class Result:
    """A compressed image and what it cost.

    `bytes` is the size of the whole file, `bpp` its bits per pixel, `psnr` (dB) that of the decoded 8-bit pixels,
    `J = bpp + λ·D` with D of the same pixels: 255²·MSE with MSE on [0, 1], or what `compress` was told to minimize.
    `base_…` is the file without refinement, `base_qp` its step as in `Header`. `reached` is the value of what a search
    aimed at, else None. `metric` names D: "mse", "ms-ssim", another of `METRICS`, or a function.
    """

    data: bytes = field(repr=False)
    image: Image.Image = field(repr=False)
    width: int
    height: int
    bpp: float
    psnr: float
    J: float
    base_bytes: int
    base_psnr: float
    base_J: float
    steps: int
    seconds: float
    reached: float | None = None
    metric: str = "mse"
    base_qp: int = NEUTRAL_QP

    @property
    def bytes(self) -> int:
        return len(self.data)

    @property
    def array(self) -> np.ndarray:
        """The decoded pixels, uint8 [H, W, 3]; [H, W] where gray, one channel more with alpha."""
        return np.asarray(self.image)


def frame_of(header: Header) -> Frame:
    """What the network's picture is cut to for a file with this header."""
    return Frame(header.height, header.width, header.grayscale)


def rd_cost(num_bytes: int, distortion: Distortion, decoded: np.ndarray, lambda_: float) -> float:
    """`J = R + λ·D`: R in bits per pixel of the file, D of the decoded uint8 pixels [H, W, 3]."""
    return 8 * num_bytes / decoded[..., 0].size + lambda_ * distortion.of_pixels(decoded)


@dataclass(frozen=True)
class Trial:
    """A whole file, what it decodes to (uint8 [H, W, 3]), and J of both."""

    data: bytes
    rgb: np.ndarray
    J: float


class Packed(NamedTuple):
    """A whole file, and ŷ as its decoder will have it."""

    data: bytes
    y_hat: torch.Tensor


class Codec:
    """A base model that compresses and decompresses pictures.

    Threads may use one codec at the same time; refinements that do share their batches (`tto.refine.batch`).
    """

    def __init__(self, model: BaseModel, device: str = "auto", side_modules: SideModules | None = None):
        """`model` in eval mode with its coding tables, and its side modules if any; `device` as for `pick_device`."""
        if side_modules is not None and side_modules.config.channels != model.y_channels:
            raise BadCheckpoint(
                f"side modules for {side_modules.config.channels} channels of y, not {model.y_channels}"
            )
        self.device = pick_device(device)
        make_repeatable(self.device)
        self.model = model.to(self.device)
        self.fingerprint = fingerprint(model)
        self.room = Room.on(self.device, sum(weights.nbytes for weights in model.parameters()))
        self.latent_coder = LatentCoder(self.model, self.room)
        self.side_coder = SideCoder(None if side_modules is None else side_modules.to(self.device), self.device)
        self._batch = Batch()

    @classmethod
    def from_pretrained(cls, model: str, device: str = "auto") -> AnyCodec:
        """A codec of a shared model, `OWNER/NAME[@REVISION]` with or without `hf://`, or of what `load_codec` takes.

        Weights are downloaded once. Raises as `load_codec`, `HubError` or `NotInstalled`.
        """
        shared = "/" in model and not model.startswith(PREFIX) and not Path(model).exists()
        return load_codec(str(parse_address(model)) if shared else model, device)

    @property
    def trained_for(self) -> str:
        """λ and, where it is not MSE, the metric, which decide what refined files are and no fingerprint tells."""
        lambdas = "/".join(f"{value:g}" for value in self.model.config.lambdas)
        return f"lambda {lambdas}" + (f", {self.model.metric}" if self.model.metric != "mse" else "")

    @cached_property
    def lowered(self) -> BaseModel:
        """The model for gradients in bfloat16."""
        return self.model.lowered(torch.bfloat16)

    @property
    def qualities(self) -> int:
        """Qualities run from 1 to this; 1 for a model of one rate."""
        return self.model.qualities

    @property
    def default_quality(self) -> float:
        return min(DEFAULT_QUALITY, self.qualities)

    def compress(
        self,
        image: PictureLike,
        quality: float | None = None,
        *,
        callbacks: Callbacks = Callbacks(),  # noqa: B008 (immutable)
        convert: bool = False,
        **options: Any,
    ) -> Result:
        """Compresses a picture; both are as for `load_picture`. `options` are the other fields of `Request`.

        `quality` is `default_quality` where it is not given. `callbacks` are told of progress and may stop the
        refinement, which leaves the best so far. The bytes are decoded once by the ordinary decoder, and figures are
        of that. Raises `TTOError` subclasses.
        """
        start = time.perf_counter()
        request = Request(self.default_quality if quality is None else quality, **options)
        self.checked_quality(request.quality)
        picture = load_picture(image, convert)
        target = make_target(picture.rgb, **request.targets)
        weights = None if request.roi is None else load_weights(request.roi, picture)
        scale = None if request.lambda_ is None else request.lambda_ / float(self.model.lambda_at(request.quality))
        metric = self._metric_of(request, picture)
        distortion = make_distortion(picture.rgb, metric, weights, scale, self.device)
        compression = _Compression(self, request, picture, distortion, name_of(metric), callbacks, start)
        if target is None:
            return compression.at(request.quality)
        result, value = search(compression.at, target, float(request.quality), self.qualities, callbacks.should_stop)
        return replace(result, reached=value)

    def _metric_of(self, request: Request, picture: Picture) -> str | Distance:
        """What is asked for, or what the network was trained for where a region and a small picture do not need mse."""
        if request.metric is not None:
            return request.metric
        fits = request.roi is None and min(picture.rgb.shape[:2]) >= MS_SSIM_MIN_SIDE
        return self.model.metric if fits else "mse"

    def at(self, quality: float) -> Codec:
        """The codec of one network that serves a quality: this one."""
        return self

    def for_file(self, data: bytes) -> Codec:
        """The codec of the network that made a file: this one."""
        return self

    def decompress(self, data: bytes, *, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
        """The picture in a .tto file, with its metadata in `info`. Raises `TTOError` subclasses."""
        return self._decode(data, max_pixels).to_pil()

    def analyse(self, rgb: np.ndarray, quality: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents y and z of uint8 pixels [H, W, 3], in units of the quantization step."""
        with self.room.lent(*rgb.shape[:2]) as memory:
            return analyse(self.model, rgb, quality, memory)

    def pack(
        self,
        picture: Picture,
        y: torch.Tensor,
        z: torch.Tensor,
        quality: float,
        qp: int = NEUTRAL_QP,
        native: bool = False,
        side: Side = NO_SIDE,
        fit_scales: bool = False,
    ) -> Packed:
        """The file of a picture whose latents are y and z. `fit_scales` as for `LatentCoder.encode`."""
        flags = (Flags.NATIVE if native else Flags.NONE) | (Flags.GRAYSCALE if picture.grayscale else Flags.NONE)
        check_size(picture.width, picture.height, None)
        header = Header(picture.width, picture.height, self.fingerprint, quality, qp, flags)
        with self.room.lent(picture.height, picture.width):
            sections, y_hat = self.latent_coder.encode(y, z, quality, qp, native, fit_scales)
        return Packed(write(Container(header, {**sections, **side.sections, **pack_attachments(picture)})), y_hat)

    def _decode(self, data: bytes, max_pixels: int | None = MAX_PIXELS) -> Picture:
        container = read(data, max_pixels=max_pixels)
        header = container.header
        if header.fingerprint != self.fingerprint:
            raise WrongModel(
                f"the file was made with another model (fingerprint {header.fingerprint.hex()}, "
                f"this model has {self.fingerprint.hex()})"
            )
        if header.quality > self.qualities:
            raise CorruptFile("header", f"quality {header.quality:g} is above this model's {self.qualities}")
        shapes = self.latent_shapes(header)
        self.latent_coder.require_enough(container.sections, shapes, header.quality, header.qp)
        with memory_for(header.width, header.height, self.device, self.model.stride, self.model.walk_bytes):
            side = self.read_side(container)
            with self.room.lent(*self.padded(header.height, header.width)):
                y_hat = self.latent_coder.decode(container.sections, shapes, header.quality, header.qp, header.native)
            rgb = self.pixels(y_hat, header.quality, frame_of(header), side)
        return unpack_attachments(rgb, header.grayscale, container.sections)

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The sides that the network has to do with."""
        return padded_size(height, width, self.model.stride)

    def latent_shapes(self, header: Header) -> LatentShapes:
        return self.model.latent_shapes(header.height, header.width)

    def read_side(self, container: Container) -> Side:
        """The side information in a file. Raises `WrongModel` or `CorruptFile`."""
        return self.side_coder.read(container.sections, self.latent_shapes(container.header).y[1:])

    @torch.inference_mode()
    def pixels(self, y_hat: torch.Tensor, quality: float, frame: Frame, side: Side = NO_SIDE) -> np.ndarray:
        """ŷ and side information → uint8 pixels [H, W, 3]."""
        with self.room.lent(*self.padded(frame.height, frame.width)) as memory:
            return to_uint8(reconstruct(self.model, quality, y_hat.to(self.device), frame, side, memory))

    def checked_quality(self, quality: float) -> float:
        """As a file can have it. Raises `BadArgument`."""
        if not 1 <= quality <= max(self.qualities, 1):
            raise BadArgument(f"quality must be between 1 and {self.qualities} for this model, got {quality:g}")
        return quantize_quality(quality)


@dataclass(frozen=True)
class _Compression:
    """One picture on its way to a file. `start` is when the request's budget began."""

    codec: Codec
    request: Request
    picture: Picture
    distortion: Distortion
    metric: str
    callbacks: Callbacks
    start: float

    def at(self, quality: float, qp: int = NEUTRAL_QP) -> Result:
        """At one quality, with the λ of that."""
        codec, picture = self.codec, self.picture
        base, best, steps = self._trials(codec.checked_quality(quality), qp)
        decoded = codec._decode(best.data, max_pixels=None)
        if not np.array_equal(decoded.rgb, best.rgb):
            raise VerificationFailed("the decoder does not give the encoder's pixels")
        return Result(
            data=best.data,
            image=decoded.to_pil(),
            width=picture.width,
            height=picture.height,
            bpp=8 * len(best.data) / (picture.width * picture.height),
            psnr=psnr(picture.rgb, best.rgb),
            J=best.J,
            base_bytes=len(base.data),
            base_psnr=psnr(picture.rgb, base.rgb),
            base_J=base.J,
            steps=steps,
            seconds=time.perf_counter() - self.start,
            metric=self.metric,
            base_qp=qp,
        )

    def _trials(self, quality: float, qp: int) -> tuple[Trial, Trial, int]:
        """Without refinement, the best, and after how many steps. No latents are kept."""
        codec, picture, lambda_ = self.codec, self.picture, self._lambda(quality)
        with memory_for(picture.width, picture.height, codec.device, walk_bytes=codec.model.walk_bytes):
            y, z = codec.analyse(picture.rgb, quality)
            began = time.perf_counter()
            base = self._judge(y, z, quality, qp, lambda_, fit_scales=False)
        if not self.request.refines:
            return base, base, 0
        judging = time.perf_counter() - began
        with torch.inference_mode(False), torch.enable_grad():  # whatever the caller has switched off
            refinement = self._refine(y.clone(), z.clone(), quality, qp, lambda_, judging)
        trials = (
            self._judge(found.y, found.z, quality, found.qp, lambda_, found.side) for found in refinement.candidates
        )
        return base, min(chain((base,), trials), key=lambda trial: trial.J), refinement.steps

    def _judge(
        self,
        y: torch.Tensor,
        z: torch.Tensor,
        quality: float,
        qp: int,
        lambda_: float,
        side: Side = NO_SIDE,
        fit_scales: bool = True,
    ) -> Trial:
        packed = self.codec.pack(self.picture, y, z, quality, qp, self.request.native, side, fit_scales)
        frame = Frame(self.picture.height, self.picture.width, self.picture.grayscale)
        rgb = self.codec.pixels(packed.y_hat, quality, frame, side)
        return Trial(packed.data, rgb, rd_cost(len(packed.data), self.distortion, rgb, lambda_))

    def _refine(
        self, y: torch.Tensor, z: torch.Tensor, quality: float, qp: int, lambda_: float, judging: float
    ) -> Refinement:
        """`judging` is how many seconds one trial takes."""
        codec, picture = self.codec, self.picture
        reduced = descends_in_bfloat16(codec.device)
        problem = Problem(
            codec.model,
            quality,
            lambda_,
            picture.height,
            picture.width,
            self.distortion,
            picture.grayscale,
            side_coder=codec.side_coder,
            bfloat16=reduced,
            lowered=codec.lowered if reduced else None,
            memory=codec.room.for_picture(picture.height, picture.width),
            evaluate=codec._batch.evaluate,
        )
        left = (self.request.budget or 0.0) - (time.perf_counter() - self.start)
        with codec.room.lent(picture.height, picture.width), codec._batch:
            return refine(problem, y, z, qp, make_plan(self.request, problem, y, z, left, judging), self.callbacks)

    def _lambda(self, quality: float) -> float:
        if self.request.lambda_ is not None:
            return self.request.lambda_
        return float(self.codec.model.lambda_at(quality)) * self.distortion.lambda_scale


AnyCodec = Codec | FamilyCodec


def load_codec(
    model: str | nn.Module = DEFAULT_MODEL,
    device: str = "auto",
    *,
    lambda_: float | None = None,
    metric: str | None = None,
) -> AnyCodec:
    """A codec of a shipped model, a checkpoint's path, `hf://OWNER/NAME`, a family of CompressAI's zoo, or of a network
    at hand: a base model, or a `CompressionModel` of CompressAI's of one of the families that are known.

    `lambda_` (of 255²·MSE; for MS-SSIM its λ / 1280) and `metric` ("mse" or "ms-ssim") say what a `CompressionModel`
    was trained for, by default 0.013 and "mse"; all others say it themselves, and so does one with gains its λ.

    Raises `BadArgument`, `BadCheckpoint`, `HubError`, or `NotInstalled` where weights are missing and cannot be
    downloaded.
    """
    if isinstance(model, nn.Module):
        return Codec(as_base_model(model, lambda_, metric), device)
    if not (lambda_ is metric is None):
        raise BadArgument(f"{model} says itself what it was trained for, without lambda_ and metric")
    family = find_family(model)
    return Codec(load_model(model), device, load_side(model)) if family is None else FamilyCodec(family, device)
