"""One image's way through tto.

compress:    picture → tensor → g_a, h_a → refinement → sections (latent coding) → container bytes
decompress:  container bytes → sections → ŷ → g_s → picture
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

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
from tto.device import descends_in_bfloat16, pick_device
from tto.errors import BadArgument, CorruptFile, VerificationFailed, WrongModel
from tto.image import Picture, load_picture
from tto.latent_coding import LatentCoder
from tto.memory import memory_for
from tto.metrics import psnr
from tto.models import DEFAULT_MODEL, load_model, load_side
from tto.padding import crop, pad_to_multiple, to_tensor, to_uint8
from tto.perceptual import Distance
from tto.refine.batch import Batch
from tto.refine.distortion import Distortion, load_weights, make_distortion
from tto.refine.engine import Watch, refine
from tto.refine.plan import Wish, make_plan
from tto.refine.problem import Problem
from tto.refine.targets import make_target, search
from tto.side.coder import SideCoder
from tto.side.side import NO_SIDE, Side

if TYPE_CHECKING:
    from tto.side.weights import SideModules

DEFAULT_QUALITY = 4.0
FINISHING = 3.0
"""Seconds that a compression takes after refinement, over those of one trial: judging, then decoding once."""


@dataclass(frozen=True)
class Result:
    """A compressed image and what it cost.

    `bytes` is the size of the whole file, `bpp` its bits per pixel, `psnr` (dB) that of the decoded 8-bit pixels,
    `J = bpp + λ·D` with D of the same pixels: 255²·MSE with MSE on [0, 1], or what `compress` was told to minimize.
    `base_…` is the file without refinement. `reached` is the value of what a search aimed at, else None.
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

    @property
    def bytes(self) -> int:
        return len(self.data)

    @property
    def array(self) -> np.ndarray:
        """The decoded pixels, uint8 [H, W, 3]; [H, W] where gray, one channel more with alpha."""
        return np.asarray(self.image)


def rd_cost(num_bytes: int, distortion: Distortion, decoded: np.ndarray, lambda_: float) -> float:
    """`J = R + λ·D`: R in bits per pixel of the file, D of the decoded uint8 pixels [H, W, 3]."""
    return 8 * num_bytes / decoded[..., 0].size + lambda_ * distortion.of_pixels(decoded)


@dataclass(frozen=True)
class Trial:
    """A whole file, what it decodes to (uint8 [H, W, 3]), and J of both."""

    data: bytes
    rgb: np.ndarray
    J: float


class Codec:
    """A base model that compresses and decompresses pictures.

    Threads may use one codec at the same time; refinements that do share their batches (`tto.refine.batch`).
    """

    def __init__(self, model: BaseModel, device: str = "auto", side_modules: SideModules | None = None):
        """`model` in eval mode with its coding tables, and its side modules if any; `device` is auto, cpu or cuda."""
        self.device = pick_device(device)
        self.model = model.to(self.device)
        self.fingerprint = fingerprint(model)
        self.latent_coder = LatentCoder(self.model)
        self.side_coder = SideCoder(None if side_modules is None else side_modules.to(self.device), self.device)
        self._batch = Batch()

    @property
    def qualities(self) -> int:
        """Qualities run from 1 to this; 1 for a model of one rate."""
        return self.model.qualities

    @property
    def default_quality(self) -> float:
        return min(DEFAULT_QUALITY, self.qualities)

    def compress(
        self,
        image: str | os.PathLike | IO[bytes] | Image.Image,
        quality: float = 4.0,
        *,
        effort: str = "none",
        steps: int | None = None,
        budget: float | None = None,
        target_bpp: float | None = None,
        target_psnr: float | None = None,
        target_ssimulacra2: float | None = None,
        target_ms_ssim: float | None = None,
        metric: str | Distance = "mse",
        roi: str | os.PathLike | IO[bytes] | Image.Image | None = None,
        native: bool = False,
        lambda_: float | None = None,
        watch: Watch = Watch(),  # noqa: B008 (immutable)
    ) -> Result:
        """Compresses a picture (path, file or PIL image).

        `quality` is a number from 1 to `qualities`. Refinement: `effort` is none, fast, balanced or best; or give a
        number of `steps`; or a `budget` in seconds for the whole compression. Where one `target_…` is given (PSNR in
        dB), quality is only where the search for it begins. `metric` is what distortion means in J: mse, ms-ssim,
        lpips, dists, or any function that `make_distortion` takes. `roi` is a picture of the same size whose brightness
        weighs distortion per pixel (black: not at all). `native` trades portability for speed (same machine only).
        `lambda_` weighs distortion in J, by default the quality's own, which only mse and ms-ssim have. `watch` hears
        of progress and may stop the refinement, which leaves the best so far.

        The bytes are decoded once by the ordinary decoder, and figures are of that. Raises `TTOError` subclasses.
        """
        start = time.perf_counter()
        wish = Wish(effort, steps, budget)
        self._checked_quality(quality)
        picture = load_picture(image)
        target = make_target(
            picture.rgb, bpp=target_bpp, psnr=target_psnr, ssimulacra2=target_ssimulacra2, ms_ssim=target_ms_ssim
        )
        weights = None if roi is None else load_weights(roi, picture)
        scale = None if lambda_ is None else lambda_ / float(self.model.lambda_at(quality))
        distortion = make_distortion(picture.rgb, metric, weights, scale, self.device)

        def attempt(quality: float, qp: int = NEUTRAL_QP) -> Result:
            quality = self._checked_quality(quality)
            weight = self._checked_lambda(lambda_, quality, distortion)
            return self._compress(picture, quality, qp, wish, distortion, weight, native, watch, start)

        if target is None:
            return attempt(quality)
        result, value = search(attempt, target, float(quality), self.qualities, watch.should_stop)
        return replace(result, reached=value)

    def _compress(
        self,
        picture: Picture,
        quality: float,
        qp: int,
        wish: Wish,
        distortion: Distortion,
        lambda_: float,
        native: bool,
        watch: Watch,
        start: float,
    ) -> Result:
        """`compress` at one quality, its λ that of `distortion`; `start` is when the budget began."""

        def judge(y: torch.Tensor, z: torch.Tensor, qp: int, side: Side = NO_SIDE, refined: bool = True) -> Trial:
            data, y_hat = self._pack(picture, y, z, quality, qp, native, side, fit_scales=refined)
            rgb = self.synthesise(y_hat, read(data, max_pixels=None).header, side)
            return Trial(data, rgb, rd_cost(len(data), distortion, rgb, lambda_))

        with memory_for(picture.width, picture.height, self.device):
            y, z = self.analyse(picture.rgb, quality)
            began = time.perf_counter()
            base = best = judge(y, z, qp, refined=False)
        done = 0
        if not wish.is_none:
            judging = time.perf_counter() - began
            problem = Problem(
                self.model,
                quality,
                lambda_,
                picture.height,
                picture.width,
                distortion,
                picture.grayscale,
                side_coder=self.side_coder,
                bfloat16=descends_in_bfloat16(self.device),
                answer=self._batch.answer,
            )
            left = (wish.budget or 0.0) - (time.perf_counter() - start) - FINISHING * judging
            with self._batch:
                refinement = refine(problem, y.clone(), z.clone(), qp, make_plan(wish, problem, y, z, left), watch)
            done = refinement.steps
            trials = (judge(found.y, found.z, found.qp, found.side) for found in refinement.candidates)
            best = min((base, *trials), key=lambda trial: trial.J)
        decoded = self._decode(best.data)
        if not np.array_equal(decoded.rgb, best.rgb):
            raise VerificationFailed("the decoder does not give the encoder's pixels")
        size = picture.width * picture.height
        return Result(
            data=best.data,
            image=decoded.to_pil(),
            width=picture.width,
            height=picture.height,
            bpp=8 * len(best.data) / size,
            psnr=psnr(picture.rgb, best.rgb),
            J=best.J,
            base_bytes=len(base.data),
            base_psnr=psnr(picture.rgb, base.rgb),
            base_J=base.J,
            steps=done,
            seconds=time.perf_counter() - start,
        )

    def decompress(self, data: bytes, *, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
        """The picture in a .tto file, with its metadata in `info`. Raises `TTOError` subclasses."""
        return self._decode(data, max_pixels).to_pil()

    @torch.inference_mode()
    def analyse(self, rgb: np.ndarray, quality: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents y and z of uint8 pixels [H, W, 3], in units of the quantization step."""
        x = pad_to_multiple(to_tensor(rgb).to(self.device), self.model.stride)
        y = self.model.analysis(x, quality)
        return y, self.model.hyper_analysis(y, quality)

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
    ) -> bytes:
        """The file of a picture whose latents are y and z. `fit_scales` as for `LatentCoder.encode`."""
        return self._pack(picture, y, z, quality, qp, native, side, fit_scales)[0]

    def _pack(
        self,
        picture: Picture,
        y: torch.Tensor,
        z: torch.Tensor,
        quality: float,
        qp: int,
        native: bool,
        side: Side,
        fit_scales: bool = False,
    ) -> tuple[bytes, torch.Tensor]:
        """The file, and ŷ as its decoder will have it."""
        flags = (Flags.NATIVE if native else Flags.NONE) | (Flags.GRAYSCALE if picture.grayscale else Flags.NONE)
        check_size(picture.width, picture.height, None)
        header = Header(picture.width, picture.height, self.fingerprint, quality, qp, flags)
        sections, y_hat = self.latent_coder.encode(y, z, quality, qp, native, fit_scales)
        return write(Container(header, {**sections, **side.sections, **pack_attachments(picture)})), y_hat

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
        self.latent_coder.require_enough(container.sections, shapes)
        with memory_for(header.width, header.height, self.device):
            side = self.read_side(container)
            y_hat = self.latent_coder.decode(container.sections, shapes, header.quality, header.qp, header.native)
            rgb = self.synthesise(y_hat, header, side)
        return unpack_attachments(rgb, header.grayscale, container.sections)

    def latent_shapes(self, header: Header) -> LatentShapes:
        return self.model.latent_shapes(header.height, header.width)

    def read_side(self, container: Container) -> Side:
        """The side information in a file. Raises `WrongModel` or `CorruptFile`."""
        return self.side_coder.read(container.sections, self.latent_shapes(container.header).y[1:])

    @torch.inference_mode()
    def synthesise(self, y_hat: torch.Tensor, header: Header, side: Side = NO_SIDE) -> np.ndarray:
        """ŷ and side information → uint8 pixels [H, W, 3], the three channels equal where the picture is gray."""
        x_hat = self.model.synthesis(side.on_latent(y_hat.float()), header.quality)
        if header.grayscale:
            x_hat = x_hat.mean(1, keepdim=True).expand_as(x_hat)
        return to_uint8(side.on_picture(crop(x_hat, header.height, header.width)))

    def _checked_quality(self, quality: float) -> float:
        if not 1 <= quality <= max(self.qualities, 1):
            raise BadArgument(f"quality must be between 1 and {self.qualities} for this model, got {quality:g}")
        return quantize_quality(quality)

    def _checked_lambda(self, lambda_: float | None, quality: float, distortion: Distortion) -> float:
        if lambda_ is None:
            return float(self.model.lambda_at(quality)) * distortion.lambda_scale
        if not 0 < lambda_ < float("inf"):
            raise BadArgument(f"lambda must be a positive number, got {lambda_:g}")
        return lambda_


def load_codec(model: str = DEFAULT_MODEL, device: str = "auto") -> Codec:
    """A codec of a shipped model or of a checkpoint's path. Raises `BadArgument` or `BadCheckpoint`."""
    return Codec(load_model(model), device, load_side(model))
