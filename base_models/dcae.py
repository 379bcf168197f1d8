"""DCAE: learned image compression with a dictionary-based entropy model.

Paper: J. Lu, L. Zhang, X. Zhou, M. Li, W. Li, S. Gu, "Learned Image Compression with Dictionary-based Entropy Model",
CVPR 2025 (https://github.com/LabShuHangGU/DCAE). Defaults, names and arithmetic are those of the published network,
so its checkpoints load unchanged. Ours: the frozen configuration that scales it down, and the gains per quality.

Shapes: `B` batch, `H W` image size (multiples of 64), `M` channels of y, `N` channels of z, `S` slices, `Q` qualities.

    x ─ g_a ─ ·gain ─ y ──────────── code slice by slice ── y_hat ─ ÷gain ─ g_s ─ x_hat
                      │                 ▲ mu, sigma
                     h_a ─ ·gain ─ z ─ z_hat ─ ÷gain ─ h_z_s1, h_z_s2 (sigma and mu features)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models import CompressionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from . import published
from .blocks import DownStage, SwinGroup, UpStage, conv, deconv
from .dictionary import DictionaryAttention
from .double import as_matrix_products
from .initialization import init_from_images
from .limits import check_lambdas, check_multiple, check_ranges


@dataclass(frozen=True)
class DCAEConfig:
    """Size of a DCAE. The defaults are the published network: 119.4 M parameters (001 §4.1).

    `lambdas` has one rate–distortion weight per quality, ascending; more than one gives the model gains per quality
    (variable rate). `dict_entries = 0` leaves the dictionary out and `msfa_scales = 0` the aggregation (001 §4.2).
    """

    stage_channels: tuple[int, int, int] = (96, 144, 256)
    swin_layers: tuple[int, int, int] = (1, 2, 12)
    head_dims: tuple[int, int, int] = (8, 16, 32)
    window: int = 8
    M: int = 320
    N: int = 192
    hyper_head_dim: int = 32
    hyper_window: int = 4
    num_slices: int = 5
    dict_entries: int = 128
    dict_heads: int = 20
    dict_head_dim: int = 32
    msfa_scales: int = 3
    context_widths: tuple[int, int] = (224, 128)
    lambdas: tuple[float, ...] = (0.013,)

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no network has."""
        check_ranges(
            self,
            stage_channels=(1, 4096), swin_layers=(0, 64), head_dims=(1, 4096), window=(1, 64),
            M=(1, 4096), N=(1, 4096), hyper_head_dim=(1, 4096), hyper_window=(1, 64), num_slices=(1, 4096),
            dict_entries=(0, 65536), dict_heads=(1, 256), dict_head_dim=(1, 256), msfa_scales=(0, 16),
            context_widths=(1, 4096),
        )  # fmt: skip
        check_lambdas(self.lambdas)
        check_multiple("M", self.M, self.num_slices)
        check_multiple("N", self.N, self.hyper_head_dim)
        for channels, head_dim in zip(self.stage_channels, self.head_dims, strict=True):
            check_multiple("stage_channels", channels, head_dim)


class Walk(NamedTuple):
    """What one walk over the slices gives, each [B, M, H/16, W/16]."""

    y_hat: Tensor
    mu: Tensor
    sigma: Tensor


CodeSlice = Callable[[int, Tensor, Tensor], Tensor]


class Gains(nn.Module):
    """One gain per quality and channel, applied before quantization and undone after it **[ours]**.

    Qualities 1…Q are real numbers; between two of them gains are interpolated geometrically.
    """

    def __init__(self, lambdas: tuple[float, ...], channels: int):
        super().__init__()
        middle = math.exp(sum(map(math.log, lambdas)) / len(lambdas))
        start = torch.tensor([0.5 * math.log(value / middle) for value in lambdas])
        self.log_gain = nn.Parameter(start[:, None].repeat(1, channels))

    def forward(self, quality: Tensor) -> Tensor:
        """Quality [B] → gain [B, C, 1, 1]."""
        position = (quality - 1).clamp(0, len(self.log_gain) - 1)
        low = position.floor().clamp(max=len(self.log_gain) - 2).long()
        part = (position - low).to(self.log_gain.dtype)[:, None]
        log_gain = self.log_gain[low] * (1 - part) + self.log_gain[low + 1] * part
        return log_gain.exp()[:, :, None, None]


def round_through(x: Tensor) -> Tensor:
    """Rounding whose gradient is that of the identity."""
    return x + (x.round() - x).detach()


def full_precision(x: Tensor) -> Tensor:
    """At least float32: likelihoods and symbols need it also under autocast."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def context_head(in_channels: int, widths: tuple[int, int], out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv(in_channels, widths[0], 3, 1),
        nn.GELU(),
        conv(widths[0], widths[1], 3, 1),
        nn.GELU(),
        conv(widths[1], out_channels, 3, 1),
    )


class DCAE(CompressionModel):
    """The network. `analysis`, `hyper_analysis`, `walk` and `synthesis` are all that a codec or a refiner needs.

    `quality` is a number or a tensor [B] in 1…Q; a model of one quality ignores it.
    """

    stride = 64

    def __init__(self, config: DCAEConfig | None = None):
        super().__init__()
        self.config = c = config or DCAEConfig()
        c1, c2, c3 = c.stage_channels
        groups = [(c.stage_channels[i], c.head_dims[i], c.window, c.swin_layers[i]) for i in range(3)]
        self.g_a = nn.Sequential(
            DownStage(3, c1), SwinGroup(*groups[0]),
            DownStage(c1, c2), SwinGroup(*groups[1]),
            DownStage(c2, c3), SwinGroup(*groups[2]),
            conv(c3, c.M),
        )  # fmt: skip
        self.g_s = nn.Sequential(
            deconv(c.M, c3),
            SwinGroup(*groups[2]), UpStage(c3, c2),
            SwinGroup(*groups[1]), UpStage(c2, c1),
            SwinGroup(*groups[0]), UpStage(c1, 3),
        )  # fmt: skip
        hyper_group = (c.N, c.hyper_head_dim, c.hyper_window, 1)
        self.h_a = nn.Sequential(DownStage(c.M, c.N), SwinGroup(*hyper_group), conv(c.N, c.N, 3))
        self.h_z_s1 = nn.Sequential(deconv(c.N, c.N, 3), SwinGroup(*hyper_group), UpStage(c.N, c.M))
        self.h_z_s2 = nn.Sequential(deconv(c.N, c.N, 3), SwinGroup(*hyper_group), UpStage(c.N, c.M))

        width = c.M // c.num_slices
        known = [2 * c.M + width * i for i in range(c.num_slices)]  # channels known before slice i
        prior = c.M if c.dict_entries else 0
        if c.dict_entries:
            self.dt = nn.Parameter(torch.randn(c.dict_entries, c.dict_heads * c.dict_head_dim))
            self.dt_cross_attention = nn.ModuleList(
                DictionaryAttention(k, c.M, c.dict_heads, c.dict_head_dim, c.msfa_scales) for k in known
            )
        widths = c.context_widths
        self.cc_mean_transforms = nn.ModuleList(context_head(k + prior, widths, width) for k in known)
        self.cc_scale_transforms = nn.ModuleList(context_head(k + prior, widths, width) for k in known)
        self.lrp_transforms = nn.ModuleList(context_head(k + prior + width, widths, width) for k in known)
        for head in self.cc_scale_transforms:
            nn.init.constant_(head[-1].bias, 1.0)

        self.entropy_bottleneck = EntropyBottleneck(c.N)
        self.gaussian_conditional = GaussianConditional(None)
        if len(c.lambdas) > 1:
            self.gain_y = Gains(c.lambdas, c.M)
            self.gain_z = Gains((1.0,) * len(c.lambdas), c.N)

    # ---- the four verbs -------------------------------------------------------------------------------------

    def analysis(self, x: Tensor, quality: float | Tensor = 1.0) -> Tensor:
        """Image [B, 3, H, W] in [0, 1] → y [B, M, H/16, W/16] in units of the quantization step.

        Raises `ValueError` unless H and W are multiples of 64.
        """
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            raise ValueError(f"image is {tuple(x.shape[-2:])}, expected multiples of {self.stride}")
        return full_precision(self.g_a(x)) * self._gain("gain_y", quality, x)

    def hyper_analysis(self, y: Tensor, quality: float | Tensor = 1.0) -> Tensor:
        """y → z [B, N, H/64, W/64] in units of the quantization step."""
        return full_precision(self.h_a(y)) * self._gain("gain_z", quality, y)

    def walk(self, z_hat: Tensor, quality: float | Tensor, code_slice: CodeSlice) -> Walk:
        """Goes through the slices of y in coding order; the only place that does.

        For slice i, `code_slice(i, mu, sigma)` returns ŷ_i before latent residual prediction, [B, M/S, H/16, W/16]:
        an estimator rounds y, an encoder also writes its symbols, a decoder reads them. `sigma` may be below the
        smallest coded scale, 0.11. `Walk.y_hat` is after residual prediction (001 Eq. 1).
        """
        z_hat = z_hat / self._gain("gain_z", quality, z_hat)
        query = torch.cat([self.h_z_s1(z_hat), self.h_z_s2(z_hat)], dim=1)
        y_hat, mus, sigmas = [], [], []
        for i in range(self.config.num_slices):
            support = query
            if self.config.dict_entries:
                support = torch.cat([query, self.dt_cross_attention[i](query, self.dt)], dim=1)
            mu = full_precision(self.cc_mean_transforms[i](support))
            sigma = full_precision(self.cc_scale_transforms[i](support))
            y_hat_i = code_slice(i, mu, sigma)
            residual = self.lrp_transforms[i](torch.cat([support, y_hat_i.to(support.dtype)], dim=1))
            y_hat_i = y_hat_i + 0.5 * torch.tanh(full_precision(residual))
            query = torch.cat([query, y_hat_i.to(query.dtype)], dim=1)
            y_hat.append(y_hat_i)
            mus.append(mu)
            sigmas.append(sigma)
        return Walk(torch.cat(y_hat, 1), torch.cat(mus, 1), torch.cat(sigmas, 1))

    def synthesis(self, y_hat: Tensor, quality: float | Tensor = 1.0, recompute: bool = False) -> Tensor:
        """ŷ → x̂ [B, 3, H, W], not clamped.

        With `recompute` a backward pass takes less memory and more time: only one stage's activations at once.
        """
        x = y_hat / self._gain("gain_y", quality, y_hat)
        if recompute:
            return full_precision(checkpoint_sequential(self.g_s, len(self.g_s), x, use_reentrant=False))
        return full_precision(self.g_s(x))

    # ---- training and estimation ----------------------------------------------------------------------------

    def forward(self, x: Tensor, quality: float | Tensor = 1.0) -> dict:
        """Reconstruction and likelihoods as CompressAI models give them.

        In training mode the likelihoods are those of noisy latents and rounding passes gradients straight through.
        """
        y = self.analysis(x, quality)
        z = self.hyper_analysis(y, quality)
        with torch.autocast(x.device.type, enabled=False):
            _, z_likelihoods = self.entropy_bottleneck(z)
        medians = self.z_medians()
        y_slices = y.chunk(self.config.num_slices, 1)
        walk = self.walk(
            round_through(z - medians) + medians, quality, lambda i, mu, sigma: round_through(y_slices[i] - mu) + mu
        )
        with torch.autocast(x.device.type, enabled=False):
            _, y_likelihoods = self.gaussian_conditional(y, walk.sigma, walk.mu)
        return {
            "x_hat": self.synthesis(walk.y_hat, quality),
            "likelihoods": {"y": y_likelihoods, "z": z_likelihoods},
        }

    def z_medians(self) -> Tensor:
        """What z is centred on before rounding, [1, N, 1, 1]."""
        return self.entropy_bottleneck.quantiles[None, :, 0, 1:2, None].detach()

    def lambda_at(self, quality: float | Tensor) -> Tensor:
        """Rate–distortion weight of a quality, interpolated geometrically; same shape as `quality`."""
        logs = torch.tensor(self.config.lambdas, dtype=torch.float64).log()
        position = (torch.as_tensor(quality, dtype=torch.float64) - 1).clamp(0, len(logs) - 1)
        low = position.floor().clamp(max=max(len(logs) - 2, 0)).long()
        high = (low + 1).clamp(max=len(logs) - 1)
        return (logs[low] + (logs[high] - logs[low]) * (position - low)).exp()

    def init_from_images(self, x: Tensor) -> None:
        """Starting point for training, fitted to crops x: see `base_models.initialization`."""
        init_from_images(self, x)

    def entropy_walker(self, dtype: torch.dtype = torch.float64) -> DCAE:
        """A copy that can only `walk`, in another precision: everything that decides how a symbol is coded."""
        memo = {id(self.g_a): nn.Identity(), id(self.h_a): nn.Identity(), id(self.g_s): nn.Identity()}
        walker = copy.deepcopy(self, memo).to(dtype).eval().requires_grad_(False)
        return as_matrix_products(walker)

    def _gain(self, name: str, quality: float | Tensor, like: Tensor) -> Tensor | float:
        if len(self.config.lambdas) == 1:
            return 1.0
        quality = torch.as_tensor(quality, device=like.device).reshape(-1).to(torch.float64)
        return getattr(self, name)(quality)

    # ---- the published code's own streams -------------------------------------------------------------------

    def compress(self, x: Tensor) -> dict:
        """Streams of the published code: see `base_models.published.compress`."""
        return published.compress(self, x)

    def decompress(self, strings: list, shape: tuple[int, int]) -> dict:
        """Reads streams of the published code: see `base_models.published.decompress`."""
        return published.decompress(self, strings, shape)

    @classmethod
    def from_state_dict(cls, state_dict: dict) -> DCAE:
        """The published size with these weights, as CompressAI's tools ask for it."""
        from .checkpoints import load_weights

        return load_weights(cls(), state_dict)
