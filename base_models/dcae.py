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

import re
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .base import Memory, Quality, rename
from .blocks import DownStage, SwinGroup, UpStage, conv, deconv
from .channel_slices import LATENT_CODEC, ChannelSlices, Prediction, beside
from .dictionary import DictionaryAttention
from .initialization import Down, Up
from .limits import check_lambdas, check_multiple, check_range, check_ranges
from .registry import register


@dataclass(frozen=True)
class DictionaryModelConfig:
    """Size of the dictionary entropy model. The defaults are the published network's (Lu 2025, §4.1).

    `lambdas` has one rate–distortion weight per quality, ascending; more than one gives the model gains per quality
    (variable rate). `dict_entries = 0` leaves the dictionary out and `msfa_scales = 0` the aggregation (Lu 2025, §4.2).
    """

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
            N=(1, 4096), hyper_head_dim=(1, 4096), hyper_window=(1, 64), num_slices=(1, 4096),
            dict_entries=(0, 65536), dict_heads=(1, 256), dict_head_dim=(1, 256), msfa_scales=(0, 16),
            context_widths=(1, 4096),
        )  # fmt: skip
        check_lambdas(self.lambdas)
        check_multiple("N", self.N, self.hyper_head_dim)


@dataclass(frozen=True)
class DCAEConfig(DictionaryModelConfig):
    """Size of a DCAE. The defaults are the published network (Lu 2025, §4.1): 119.4 M parameters.

    `stage_channels` and `swin_layers` are of g_s, and of g_a where it has none of its own, `analysis_channels` and
    `analysis_layers` **[ours]**: a larger one costs nothing in decoding.
    """

    stage_channels: tuple[int, int, int] = (96, 144, 256)
    swin_layers: tuple[int, int, int] = (1, 2, 12)
    analysis_channels: tuple[int, int, int] | None = None
    analysis_layers: tuple[int, int, int] | None = None
    head_dims: tuple[int, int, int] = (8, 16, 32)
    window: int = 8
    M: int = 320

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self, stage_channels=(1, 4096), swin_layers=(0, 64), head_dims=(1, 4096), window=(1, 64), M=(1, 4096)
        )
        check_multiple("M", self.M, self.num_slices)
        if self.analysis_channels is not None:
            check_range("analysis_channels", self.analysis_channels, self.stage_channels, 1, 4096)
        if self.analysis_layers is not None:
            check_range("analysis_layers", self.analysis_layers, self.swin_layers, 0, 64)
        for name in ("stage_channels", "analysis_channels"):
            for channels, head_dim in zip(getattr(self, name) or (), self.head_dims, strict=False):
                check_multiple(name, channels, head_dim)


def transforms(c: DCAEConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """g_a and g_s."""

    def group(i: int, channels: tuple[int, int, int], layers: tuple[int, int, int]) -> SwinGroup:
        return SwinGroup(channels[i], c.head_dims[i], c.window, layers[i])

    a1, a2, a3 = own = c.analysis_channels or c.stage_channels
    layers = c.analysis_layers or c.swin_layers
    g_a = nn.Sequential(
        DownStage(3, a1), group(0, own, layers),
        DownStage(a1, a2), group(1, own, layers),
        DownStage(a2, a3), group(2, own, layers),
        conv(a3, c.M),
    )  # fmt: skip
    s1, s2, s3 = c.stage_channels
    g_s = nn.Sequential(
        deconv(c.M, s3),
        group(2, c.stage_channels, c.swin_layers), UpStage(s3, s2),
        group(1, c.stage_channels, c.swin_layers), UpStage(s2, s1),
        group(0, c.stage_channels, c.swin_layers), UpStage(s1, 3),
    )  # fmt: skip
    return g_a, g_s


class HyperFeatures(NamedTuple):
    """The query of the first slice [B, 2·M, h, w], features of σ before those of μ, and what is asked, [E, C] or one
    for each picture [B, E, C]; None without a dictionary.
    """

    query: Tensor
    dictionary: Tensor | None = None


class DictionaryCoded(ChannelSlices):
    """A model with the dictionary-based entropy model, whatever its transforms; a part is a slice of channels."""

    not_matrices = ("dt",)

    def make_dictionary_model(self, c: DictionaryModelConfig, channels: int) -> None:
        """The whole entropy model, in the sizes of a configuration, for y of so many channels."""
        hyper_group = (c.N, c.hyper_head_dim, c.hyper_window, 1)
        self.h_a = nn.Sequential(DownStage(channels, c.N), SwinGroup(*hyper_group), conv(c.N, c.N, 3))
        self.h_z_s1 = nn.Sequential(deconv(c.N, c.N, 3), SwinGroup(*hyper_group), UpStage(c.N, channels))
        self.h_z_s2 = nn.Sequential(deconv(c.N, c.N, 3), SwinGroup(*hyper_group), UpStage(c.N, channels))

        known = [2 * channels + channels // c.num_slices * i for i in range(c.num_slices)]  # channels before slice i
        prior = channels if c.dict_entries else 0
        if c.dict_entries:
            self.make_dictionary(c)
            self.dt_cross_attention = nn.ModuleList(
                DictionaryAttention(k, channels, c.dict_heads, c.dict_head_dim, c.msfa_scales) for k in known
            )
        self.make_heads(channels, c.num_slices, [k + prior for k in known], c.context_widths)
        self.make_entropy_models(channels, c.N)

    def make_dictionary(self, c: DictionaryModelConfig) -> None:
        self.dt = nn.Parameter(torch.randn(c.dict_entries, c.dict_heads * c.dict_head_dim))

    def hyper_features(self, z_hat: Tensor, quality: Quality, memory: Memory = None) -> HyperFeatures:
        z_hat = z_hat / self.gain("gain_z", quality, z_hat)
        (of_sigma,) = self.bounded("h_z_s1", self.h_z_s1, (z_hat,), memory)
        (of_mu,) = self.bounded("h_z_s2", self.h_z_s2, (z_hat,), memory)
        return HyperFeatures(torch.cat([of_sigma, of_mu], dim=1), self.dt if self.config.dict_entries else None)

    def predict(self, i: int, known: HyperFeatures) -> Prediction:
        """From the dictionary, asked with all that is known so far (Lu 2025, Eq. 3 and 4)."""
        support = known.query
        if known.dictionary is not None:
            support = torch.cat([support, self.dt_cross_attention[i](support, known.dictionary)], dim=1)
        return Prediction(self.cc_mean_transforms[i](support), self.cc_scale_transforms[i](support), support)

    def extend(self, known: HyperFeatures, y_hat_i: Tensor) -> HyperFeatures:
        return known._replace(query=beside(known.query, y_hat_i))

    def explanations(self, z_hat: Tensor, quality: Quality, y_hat: Tensor) -> dict[str, Tensor]:
        """`dictionary`: how strongly the last slice uses each entry at each position (Lu 2025, Fig. 8)."""
        hyper = self.hyper_features(z_hat, quality)
        if hyper.dictionary is None:
            return {}
        earlier = self.split_y(y_hat)[:-1]
        query = beside(hyper.query, self.join_y(earlier)) if earlier else hyper.query
        last = cast(DictionaryAttention, self.dt_cross_attention[-1])
        return {"dictionary": last.attention_maps(query, hyper.dictionary)[0]}


class DCAE(DictionaryCoded):
    """The network; verbs and parts are those of `BaseModel`."""

    registered_name = "dcae"
    make_transforms = staticmethod(transforms)

    def __init__(self, config: DCAEConfig | None = None):
        super().__init__(config or DCAEConfig())
        self.g_a, self.g_s = transforms(self.config)
        self.make_dictionary_model(self.config, self.config.M)

    def strides(self) -> list[tuple[Down, Up]]:
        downs = [layer.conv if isinstance(layer, DownStage) else cast(nn.Conv2d, layer) for layer in self.g_a[::2]]
        ups = [layer.conv if isinstance(layer, UpStage) else cast(nn.ConvTranspose2d, layer) for layer in self.g_s[::2]]
        return list(zip(downs, reversed(ups), strict=True))

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From CompressAI after 1.2.8, where features of μ come before those of σ."""
        if "shared_dictionary.dt" not in state:
            return state
        channels = state["latent_codec.h_a.0.conv.weight"].shape[1]
        state = rename(state, LATENT_CODEC_RENAMES)
        for key in filter(READS_HYPER_FEATURES.fullmatch, state):
            means, scales, others = state[key].tensor_split((channels, 2 * channels), 1)
            state[key] = torch.cat([scales, means, others], 1)
        return state


LATENT_CODEC_RENAMES = (
    (r"^shared_dictionary\.dt$", "dt"),
    (r"^latent_codec\.y\.channel_context\.y(\d+)\.cross_attention\.", r"dt_cross_attention.\1."),
    *LATENT_CODEC,
    (r"^h_mean_s\.", "h_z_s2."),
    (r"^h_scale_s\.", "h_z_s1."),
)
READS_HYPER_FEATURES = re.compile(
    r"(cc_mean|cc_scale|lrp)_transforms\.\d+\.0\.weight|dt_cross_attention\.\d+\.x_trans\.weight"
)


register("dcae", DCAE, DCAEConfig())
register(
    "dcae-small",
    DCAE,
    DCAEConfig(
        stage_channels=(32, 48, 80),
        swin_layers=(0, 0, 2),
        head_dims=(8, 16, 16),
        M=160,
        N=48,
        num_slices=4,
        dict_entries=64,
        dict_heads=4,
        dict_head_dim=16,
        context_widths=(36, 32),
        hyper_head_dim=16,
        lambdas=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128),
    ),
)
