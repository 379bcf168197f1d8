"""TCM: learned image compression with mixed transformer-CNN blocks.

Paper: J. Liu, H. Sun, J. Katto, "Learned Image Compression with Mixed Transformer-CNN Architectures", CVPR 2023
(https://github.com/jmliu206/LIC_TCM). Defaults, names and arithmetic are those of the published network, so its
checkpoints load unchanged. Ours: the frozen configuration, windows that fit maps of every size, gains per quality.

Shapes: `B` batch, `H W` image size (multiples of 64), `M` channels of y, `N` half the width of the transforms,
`Z` channels of z, `S` slices.

    x ─ g_a ─ y ──────────── code slice by slice ── y_hat ─ g_s ─ x_hat
              │                 ▲ mu, sigma
             h_a ─ z ─ z_hat ─ h_mean_s, h_scale_s
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import Memory, Quality, numbered, rename
from .blocks import WindowAttention, conv
from .channel_slices import LATENT_CODEC, ChannelSlices, Prediction, beside
from .limits import check_lambdas, check_multiple, check_ranges
from .registry import name_of, register
from .residual import GatedAttention, ResidualBlock, ResidualDown, ResidualUp, subpixel


@dataclass(frozen=True)
class TCMConfig:
    """Size of a TCM; `N` is 64 or 128 in the published checkpoints, half the width of its transforms.

    `residual_sees_attention` says whether residuals are predicted from the context of the means after its attention, as
    in the published network, or before, as in CompressAI's, whose checkpoints look the same in that.
    """

    N: int = 64
    M: int = 320
    z_channels: int = 192
    blocks: tuple[int, int, int] = (2, 2, 2)
    head_dims: tuple[int, int, int] = (8, 16, 32)
    window: int = 8
    hyper_blocks: int = 2
    hyper_head_dim: int = 32
    hyper_window: int = 4
    num_slices: int = 5
    attention_channels: int = 128
    attention_head_dim: int = 16
    context_widths: tuple[int, int] = (224, 128)
    residual_sees_attention: bool = True
    lambdas: tuple[float, ...] = (0.013,)

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no network has."""
        check_ranges(
            self,
            N=(1, 4096), M=(1, 4096), z_channels=(1, 4096), blocks=(0, 64), head_dims=(1, 4096), window=(1, 64),
            hyper_blocks=(0, 64), hyper_head_dim=(1, 4096), hyper_window=(1, 64), num_slices=(1, 4096),
            attention_channels=(2, 4096), attention_head_dim=(1, 4096), context_widths=(1, 4096),
        )  # fmt: skip
        check_lambdas(self.lambdas)
        check_multiple("M", self.M, self.num_slices)
        check_multiple("attention_channels", self.attention_channels, self.attention_head_dim)
        for head_dim in (*self.head_dims, self.hyper_head_dim):
            check_multiple("N", self.N, head_dim)


class SwinLayer(nn.Module):
    """Window attention and a perceptron four times as wide, each behind a layer norm; [B, H, W, C] in and out."""

    def __init__(self, channels: int, head_dim: int, window: int, shifted: bool):
        super().__init__()
        self.ln1 = nn.LayerNorm(channels)
        self.msa = WindowAttention(channels, head_dim, window, shifted)
        self.ln2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.msa(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class MixedBlock(nn.Module):
    """Half of the channels through residual convolutions, half through a Swin layer (paper, Fig. 3)."""

    ends = ("conv1_2",)

    def __init__(self, channels: int, head_dim: int, window: int, shifted: bool):
        super().__init__()
        self.trans_block = SwinLayer(channels, head_dim, window, shifted)
        self.conv1_1 = conv(2 * channels, 2 * channels, 1, 1)
        self.conv1_2 = conv(2 * channels, 2 * channels, 1, 1)
        self.conv_block = ResidualBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        local, tokens = self.conv1_1(x).chunk(2, 1)
        local = local + self.conv_block(local)
        tokens = self.trans_block(tokens.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.conv1_2(torch.cat([local, tokens], 1))


def mixed_blocks(count: int, channels: int, head_dim: int, window: int) -> list[MixedBlock]:
    """`count` blocks, their windows plain and shifted in turn."""
    return [MixedBlock(channels, head_dim, window, shifted=i % 2 == 1) for i in range(count)]


class SwinPair(nn.Module):
    """A Swin layer with plain and one with shifted windows; [B, C, H, W] in and out."""

    def __init__(self, channels: int, head_dim: int, window: int):
        super().__init__()
        self.block_1 = SwinLayer(channels, head_dim, window, shifted=False)
        self.block_2 = SwinLayer(channels, head_dim, window, shifted=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.block_1(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class SwinAttention(GatedAttention):
    """Gated attention whose gate sees Swin features, at `width` channels (paper, Fig. 5: SWAtten)."""

    def __init__(self, channels: int, width: int, head_dim: int, window: int):
        super().__init__(width)
        self.non_local_block = SwinPair(width, head_dim, window)
        self.in_conv = conv(channels, width, 1, 1)
        self.out_conv = conv(width, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = self.in_conv(x)
        return self.out_conv(super().forward(x, self.non_local_block(x)))


def transforms(c: TCMConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """g_a and g_s."""
    width = 2 * c.N
    stages = [mixed_blocks(n, c.N, d, c.window) for n, d in zip(c.blocks, c.head_dims, strict=True)]
    g_a = nn.Sequential(
        ResidualDown(3, width),
        *stages[0], ResidualDown(width, width),
        *stages[1], ResidualDown(width, width),
        *stages[2], conv(width, c.M, 3),
    )  # fmt: skip
    stages = [mixed_blocks(n, c.N, d, c.window) for n, d in zip(c.blocks, c.head_dims, strict=True)]
    g_s = nn.Sequential(
        ResidualUp(c.M, width),
        *stages[2], ResidualUp(width, width),
        *stages[1], ResidualUp(width, width),
        *stages[0], subpixel(width, 3),
    )  # fmt: skip
    return g_a, g_s


class HyperFeatures(NamedTuple):
    """What μ and what σ are predicted from, [B, M, h, w] each before the first slice."""

    mean: Tensor
    scale: Tensor


class TCM(ChannelSlices):
    """The network; a part is a slice of channels."""

    registered_name = "tcm"
    make_transforms = staticmethod(transforms)

    def __init__(self, config: TCMConfig | None = None):
        super().__init__(config or TCMConfig())
        c = self.config
        width = 2 * c.N
        self.g_a, self.g_s = transforms(c)
        hyper = (c.hyper_blocks, c.N, c.hyper_head_dim, c.hyper_window)
        self.h_a = nn.Sequential(ResidualDown(c.M, width), *mixed_blocks(*hyper), conv(width, c.z_channels, 3))
        self.h_mean_s = nn.Sequential(ResidualUp(c.z_channels, width), *mixed_blocks(*hyper), subpixel(width, c.M))
        self.h_scale_s = nn.Sequential(ResidualUp(c.z_channels, width), *mixed_blocks(*hyper), subpixel(width, c.M))
        known = [c.M + c.M // c.num_slices * i for i in range(c.num_slices)]  # channels known of μ or σ before slice i

        def attention(channels: int) -> nn.Sequential:
            return nn.Sequential(SwinAttention(channels, c.attention_channels, c.attention_head_dim, c.window))

        self.support_repeats = not c.residual_sees_attention
        self.atten_mean = nn.ModuleList(map(attention, known))
        self.atten_scale = nn.ModuleList(map(attention, known))
        self.make_heads(c.M, c.num_slices, known, c.context_widths)
        self.make_entropy_models(c.M, c.z_channels)

    @property
    def beside_weights(self) -> str:
        """From what residuals are predicted, where it is not as published."""
        return "" if self.config.residual_sees_attention else "residuals without attention"

    def hyper_features(self, z_hat: Tensor, quality: Quality, memory: Memory = None) -> HyperFeatures:
        z_hat = z_hat / self.gain("gain_z", quality, z_hat)
        (mean,) = self.bounded("h_mean_s", self.h_mean_s, (z_hat,), memory)
        (scale,) = self.bounded("h_scale_s", self.h_scale_s, (z_hat,), memory)
        return HyperFeatures(mean, scale)

    def predict(self, i: int, known: HyperFeatures) -> Prediction:
        support = self.atten_mean[i](known.mean)
        sigma = self.cc_scale_transforms[i](self.atten_scale[i](known.scale))
        return Prediction(
            self.cc_mean_transforms[i](support), sigma, support if self.config.residual_sees_attention else known.mean
        )

    def extend(self, known: HyperFeatures, y_hat_i: Tensor) -> HyperFeatures:
        return HyperFeatures(beside(known.mean, y_hat_i), beside(known.scale, y_hat_i))

    @classmethod
    def recognize(cls, state: dict[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
        """Sizes are those of layers and of position tables. In CompressAI's layout the network is CompressAI's, too."""
        theirs = any(key.startswith(CHANNEL_CONTEXT) for key in state)
        state = cls.rename_keys(state)
        stages, hyper_stages = swin_stages(state, "g_a"), swin_stages(state, "h_a")
        if not state.keys() >= OWN_KEYS or (len(stages), len(hyper_stages)) != (3, 1):
            return None
        (hyper,) = hyper_stages
        channels, attention = len(state["g_a.0.conv1.weight"]) // 2, len(state[f"{ATTENTION}in_conv.weight"])
        sizes = {
            "N": channels,
            "M": state["h_a.0.conv1.weight"].shape[1],
            "z_channels": len(state["entropy_bottleneck.quantiles"]),
            "blocks": tuple(stage.blocks for stage in stages),
            "head_dims": tuple(channels // stage.heads for stage in stages),
            "window": stages[0].window,
            "hyper_blocks": hyper.blocks,
            "hyper_head_dim": channels // hyper.heads,
            "hyper_window": hyper.window,
            "num_slices": len(numbered(state, "cc_mean_transforms.{}.0.weight")),
            "attention_channels": attention,
            "attention_head_dim": attention // len(state[f"{ATTENTION}{OF_ATTENTION}"]),
            "context_widths": tuple(len(state[f"cc_mean_transforms.0.{layer}.weight"]) for layer in (0, 2)),
        }
        return name_of(cls, sizes), sizes | {"residual_sees_attention": not theirs}

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From CompressAI after 1.2.8, whose window attention is timm's with a second projection behind it."""
        return rename(_join_projections(state), LATENT_CODEC_RENAMES)


ATTENTION = "atten_mean.0.0."
OF_ATTENTION = "non_local_block.block_1.msa.relative_position_params"
OWN_KEYS = {
    "g_a.0.conv1.weight", "h_a.0.conv1.weight", "entropy_bottleneck.quantiles", "cc_mean_transforms.0.0.weight",
    "cc_mean_transforms.0.2.weight", f"{ATTENTION}in_conv.weight", f"{ATTENTION}{OF_ATTENTION}",
}  # fmt: skip


class Stage(NamedTuple):
    """Mixed blocks in a row."""

    blocks: int
    heads: int
    window: int


def swin_stages(state: Mapping[str, Tensor], part: str) -> list[Stage]:
    """Of g_a or h_a, where other layers stand between; from position tables [heads, 2·window − 1, 2·window − 1]."""
    pattern = re.compile(rf"{part}\.(\d+)\.trans_block\.msa\.relative_position_params")
    tables = {int(match[1]): state[match[0]] for match in map(pattern.fullmatch, state) if match}
    firsts, lasts = ([i for i in sorted(tables) if i + step not in tables] for step in (-1, 1))
    return [
        Stage(last - first + 1, len(tables[first]), (tables[first].shape[-1] + 1) // 2)
        for first, last in zip(firsts, lasts, strict=True)
    ]


CHANNEL_CONTEXT = "latent_codec.y.channel_context.y0.mean_support_transform."
LATENT_CODEC_RENAMES = (
    (r"^latent_codec\.y\.channel_context\.y(\d+)\.(mean|scale)_support_transform\.", r"atten_\2.\1.0."),
    *LATENT_CODEC,
    (r"\.msa\.attn\.qkv\.", ".msa.embedding_layer."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
)


def _join_projections(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """One projection after attention where a checkpoint has two in a row; its position table [heads, rows, columns]."""
    joined = {}
    for key, value in state.items():
        block, attention, name = key.partition(".msa.attn.")
        if name == "relative_position_bias_table":
            side = round(len(value) ** 0.5)
            joined[f"{block}.msa.relative_position_params"] = value.T.reshape(-1, side, side)
        elif name == "proj.weight":
            joined[f"{block}.msa.linear.weight"] = state[f"{block}.msa.output_proj.weight"] @ value
        elif name == "proj.bias":
            second = f"{block}.msa.output_proj"
            joined[f"{block}.msa.linear.bias"] = state[f"{second}.weight"] @ value + state[f"{second}.bias"]
        elif name != "relative_position_index" and ".msa.output_proj." not in key:
            joined[key] = value
    return joined


register("tcm", TCM, TCMConfig())
register("tcm-n128", TCM, TCMConfig(N=128))
register(
    "tcm-small",
    TCM,
    TCMConfig(
        N=24,
        M=128,
        z_channels=48,
        blocks=(1, 1, 1),
        head_dims=(8, 8, 8),
        hyper_blocks=1,
        hyper_head_dim=8,
        num_slices=4,
        attention_channels=32,
        attention_head_dim=8,
        context_widths=(48, 32),
    ),
)
