"""FTIC: frequency-aware transformers and a transformer over channels.

Paper: H. Li, S. Li, W. Dai, C. Li, J. Zou, H. Xiong, "Frequency-Aware Transformer for Learned Image Compression", ICLR
2024 (https://github.com/qingshi9974/ICLR2024-FTIC). Defaults, names and arithmetic are those of the published network.
Ours: the frozen configuration; keys and values that are kept from slice to slice, for T-CA sees earlier slices only;
and σ that are coded as `FIRST_LEVEL` at least, where the published network goes down to `LEAST_SIGMA`.

Shapes: `B` batch, `H W` image size (multiples of 128), `M` channels of y, `h w` size of y, `S` slices, `C` features of
a map, `P` tokens of a window, `K` rows of channels in T-CA, each one channel of every head.

    x ─ g_a ─ y ─ round ── code slice by slice ── + residual ── y_hat ─ g_s ─ x_hat
              │               ▲ mu, sigma, residual ← T-CA over the hyper features and the slices before
             h_a ─ z ─ z_hat ─ h_mean_s, h_scale_s
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import CodePart, Memory, Quality, Walk, full_precision
from .blocks import bias_of, conv
from .entropy_models import IntegerGaussian
from .limits import check_lambdas, check_multiple, check_ranges
from .registry import register
from .residual import ResidualDown, ResidualUp, subpixel
from .sliced import SlicedModel

BRANCHES = 4
LEAST_SIGMA = 0.01
"""What the published network bounds σ by."""
FIRST_LEVEL = 0.02
"""Of σ as it is coded. Tables tell 16 places of μ between two integers apart, and near the middle a smaller σ pays for
that: a value of σ = 0.01 and any μ costs 0.026 bits by its own density, 0.081 by a table of σ = 0.01, 0.043 by this
level's and 0.153 by that of 0.11. One of this level's σ costs 37 % more by its table than by its density, one of
σ = 0.05 costs 7 % more."""


@dataclass(frozen=True)
class FTICConfig:
    """Size of an FTIC; the defaults are the published network."""

    stage_channels: tuple[int, int, int] = (96, 144, 256)
    blocks: tuple[int, int, int] = (2, 2, 2)
    heads: tuple[int, int, int] = (8, 16, 32)
    window: int = 8
    hyper_channels: int = 256
    hyper_blocks: int = 2
    hyper_heads: int = 32
    hyper_window: int = 2
    M: int = 320
    N: int = 192
    num_slices: int = 5
    tca_depth: int = 12
    tca_ratio: int = 4
    tca_heads: int = 16
    tca_window: int = 8
    lambdas: tuple[float, ...] = (0.013,)

    def __post_init__(self) -> None:
        """Raises `ValueError` naming a field that no network has."""
        check_ranges(
            self,
            stage_channels=(1, 4096), blocks=(0, 64), heads=(1, 4096), window=(2, 8), hyper_channels=(1, 4096),
            hyper_blocks=(0, 64), hyper_heads=(1, 4096), hyper_window=(2, 2), M=(1, 4096), N=(1, 4096),
            num_slices=(1, 4096), tca_depth=(0, 64), tca_ratio=(1, 64), tca_heads=(1, 4096), tca_window=(1, 8),
        )  # fmt: skip
        check_lambdas(self.lambdas)
        if 8 % self.window or 8 % self.tca_window:
            raise ValueError(f"window is {self.window} and tca_window {self.tca_window}, expected divisors of 8")
        check_multiple("M", self.M, 2 * self.num_slices)
        check_multiple("M / num_slices · tca_ratio", self.M // self.num_slices * self.tca_ratio, self.tca_heads)
        for channels, heads in zip(self.stage_channels, self.heads, strict=True):
            check_multiple("heads", heads, BRANCHES)
            check_multiple("stage_channels", channels, heads)
        check_multiple("hyper_heads", self.hyper_heads, BRANCHES)
        check_multiple("hyper_channels", self.hyper_channels, self.hyper_heads)


# ---- transforms ---------------------------------------------------------------------------------------------


def to_windows(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[..., H, W, C] → [..., H/p, W/q, p, q, C]."""
    return x.unflatten(-2, (-1, size[1])).unflatten(-4, (-1, size[0])).transpose(-4, -3)


def from_windows(x: Tensor) -> Tensor:
    """Inverse of `to_windows`."""
    return x.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)


class BranchAttention(nn.Module):
    """Self-attention in windows of one shape, on the channels of one branch."""

    not_matrices = ("relative_position_bias_table",)
    relative_position_index: Tensor

    def __init__(self, heads: int, size: tuple[int, int]):
        super().__init__()
        self.heads, self.size = heads, size
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size[0] - 1) * (2 * size[1] - 1), heads))
        rows, columns = (torch.arange(side) for side in size)
        grid = torch.cartesian_prod(rows, columns).view(-1, 2)
        offsets = grid[:, None] - grid[None, :] + torch.tensor(size) - 1
        self.register_buffer("relative_position_index", offsets[..., 0] * (2 * size[1] - 1) + offsets[..., 1])

    def forward(self, qkv: Tensor) -> Tensor:
        """[3, B, H, W, C] → [B, H, W, C]."""
        windows = to_windows(qkv, self.size)
        rows = windows.flatten(1, 3).flatten(2, 3).unflatten(-1, (self.heads, -1))
        q, k, v = rows.transpose(-3, -2)  # each [B·windows, heads, P, D]
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1).unsqueeze(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return from_windows(x.transpose(1, 2).reshape(windows.shape[1:]))


class FrequencyModulation(nn.Module):
    """A complex weight for each frequency of a window and each channel; [B, H, W, C] in and out."""

    not_matrices = ("complex_weight",)

    def __init__(self, channels: int, window: int):
        super().__init__()
        self.window = window
        one = torch.tensor([1.0, 0.0])
        self.complex_weight = nn.Parameter(one.repeat(window, window // 2 + 1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = (self.window, self.window)
        spectrum = torch.fft.rfft2(to_windows(full_precision(x), size), dim=(-3, -2), norm="ortho")
        spectrum = spectrum * torch.view_as_complex(self.complex_weight.contiguous())
        return from_windows(torch.fft.irfft2(spectrum, s=size, dim=(-3, -2), norm="ortho"))


class FrequencyLayer(nn.Module):
    """Windows of four shapes, each on a quarter of the channels, then a modulated perceptron (paper, §3.2, §3.3).

    Shifted windows wrap around the map without a mask. [B, H, W, C] in and out.
    """

    def __init__(self, channels: int, heads: int, window: int, shifted: bool):
        super().__init__()
        large, small = 2 * window, window // 2
        sizes = [(large, large), (small, small), (small, large), (large, small)]
        self.shifted = shifted
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.norm1 = nn.LayerNorm(channels)
        self.proj = nn.Linear(channels, channels)
        self.attns = nn.ModuleList(BranchAttention(heads // BRANCHES, size) for size in sizes)
        self.fm = FrequencyModulation(channels, large)
        self.ffn = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, -1)).movedim(-2, 0)  # [3, B, H, W, C]
        attentions = cast(list[BranchAttention], list(self.attns))
        branches = [self._branch(attn, part) for attn, part in zip(attentions, qkv.chunk(BRANCHES, -1), strict=True)]
        x = x + self.proj(torch.cat(branches, -1))
        return x + self.fm(self.ffn(self.norm2(x)))

    def _branch(self, attention: BranchAttention, qkv: Tensor) -> Tensor:
        """By half a window, there rounded up and back rounded down, as published: a window of one pixel moves."""
        if not self.shifted:
            return attention(qkv)
        there = [-((side + 1) // 2) for side in attention.size]
        back = [side // 2 for side in attention.size]
        return attention(qkv.roll(there, (2, 3))).roll(back, (1, 2))


class FrequencyBlock(nn.Module):
    """A frequency layer between 1×1 convolutions, plus the input; [B, C, H, W] in and out."""

    ends = ("conv1_2",)

    def __init__(self, channels: int, heads: int, window: int, shifted: bool):
        super().__init__()
        self.wraps = 2 * window if shifted else 0
        self.trans_block = FrequencyLayer(channels, heads, window, shifted)
        self.conv1_1 = conv(channels, channels, 1, 1)
        self.conv1_2 = conv(channels, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.trans_block(self.conv1_1(x).permute(0, 2, 3, 1))
        return x + self.conv1_2(tokens.permute(0, 3, 1, 2).to(x.dtype))


def frequency_blocks(count: int, channels: int, heads: int, window: int) -> list[FrequencyBlock]:
    """`count` blocks, their windows plain and shifted in turn."""
    return [FrequencyBlock(channels, heads, window, shifted=i % 2 == 1) for i in range(count)]


def transforms(c: FTICConfig) -> tuple[nn.Sequential, nn.Sequential]:
    """g_a and g_s."""
    c1, c2, c3 = c.stage_channels

    def stage(i: int) -> list[FrequencyBlock]:
        return frequency_blocks(c.blocks[i], c.stage_channels[i], c.heads[i], c.window)

    g_a = nn.Sequential(
        ResidualDown(3, c1), *stage(0), ResidualDown(c1, c2), *stage(1), ResidualDown(c2, c3), *stage(2),
        conv(c3, c.M, 3),
    )  # fmt: skip
    g_s = nn.Sequential(
        ResidualUp(c.M, c3), *stage(2), ResidualUp(c3, c2), *stage(1), ResidualUp(c2, c1), *stage(0), subpixel(c1, 3)
    )
    return g_a, g_s


def whole_map_bytes(c: FTICConfig) -> float:
    """For each pixel, what transforms over tiles keep: of the largest map with windows that wrap round it the input and
    the output.
    """
    stages = zip(c.stage_channels, c.blocks, strict=True)
    return max((2 * 4 * channels / 4**i for i, (channels, count) in enumerate(stages, 1) if count > 1), default=0.0)


# ---- T-CA: a transformer over slices of channels (paper, §3.4) ------------------------------------------------


class SliceConv(nn.Conv2d):
    """A convolution for each slice, of `groups` groups, or depth-wise."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, slices: int, depthwise: bool = False):
        groups = in_channels if depthwise else slices
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups)
        self.slices = slices

    def forward(self, x: Tensor, i: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Features of slice i [B, in/S, h, w] → [B, out/S, h, w]."""
        width = self.out_channels // self.slices
        weight, bias = self.weight[width * i : width * (i + 1)], bias_of(self)[width * i : width * (i + 1)]
        return F.conv2d(x, weight, bias, padding=self.padding, groups=self.groups // self.slices)


class SliceNorm(nn.GroupNorm):
    """Group norm of each slice, its channels and positions together."""

    def forward(self, x: Tensor, i: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        part = slice(x.shape[1] * i, x.shape[1] * (i + 1))
        return F.group_norm(x, 1, self.weight[part], self.bias[part], self.eps)


class ConvolutionalPosition(nn.Module):
    """Position by a depthwise 3×3 convolution of slice i [B, C/S, H, W], added to it."""

    def __init__(self, channels: int, slices: int):
        super().__init__()
        self.proj = SliceConv(channels, channels, 3, slices, depthwise=True)
        self.norm = SliceNorm(slices, channels)

    def forward(self, x: Tensor, i: int) -> Tensor:
        return x + F.gelu(self.norm(self.proj(x, i), i))


class ChannelAttention(nn.Module):
    """Rows of channels of slice i attend to those of slices up to i, in each window."""

    def __init__(self, channels: int, slices: int, heads: int):
        super().__init__()
        self.heads, self.rows = heads, channels // heads
        self.proj = SliceConv(channels, channels, 1, slices)

    def forward(self, q: Tensor, keys: Tensor, values: Tensor, i: int) -> Tensor:
        """q [B, K/S·heads, p, q], keys and values [B, heads, K, P] → as q."""
        x = F.scaled_dot_product_attention(self.split(q), keys, values, scale=self.rows**-0.5)
        return self.proj(x.transpose(1, 2).reshape(q.shape), i)

    def split(self, x: Tensor) -> Tensor:
        """[B, K·heads, p, q] → [B, heads, K, P]."""
        return x.flatten(2).unflatten(1, (-1, self.heads)).transpose(1, 2)


class ChannelPerceptron(nn.Module):
    """Two 1×1 convolutions of slice i [B, C/S, H, W], as wide as it is."""

    def __init__(self, channels: int, slices: int):
        super().__init__()
        self.fc1 = SliceConv(channels, channels, 1, slices)
        self.fc2 = SliceConv(channels, channels, 1, slices)

    def forward(self, x: Tensor, i: int) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x, i)), i)


class ChannelBlock(nn.Module):
    """One layer of T-CA, slice after slice: what later slices need of earlier ones is in `memory`."""

    def __init__(self, channels: int, slices: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.q1 = SliceConv(channels, channels, 1, slices)
        self.k1 = SliceConv(channels, channels, 1, slices)
        self.v1 = SliceConv(channels, channels, 1, slices)
        self.norm1 = SliceNorm(slices, channels)
        self.norm2 = SliceNorm(slices, channels)
        self.cpe = nn.ModuleList([ConvolutionalPosition(channels, slices)])
        self.attn = ChannelAttention(channels, slices, heads)
        self.mlp = ChannelPerceptron(channels, slices)

    def forward(self, x: Tensor, i: int, memory: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Features of slice i [B, C/S, h, w] in and out; appends its keys and values to `memory`."""
        batch, (height, width) = x.shape[0], x.shape[-2:]
        size = (self.window, self.window)
        windows = to_windows(x[..., None], size).squeeze(-1)  # [B, C/S, h/p, w/p, p, p]
        windows = windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        windows = self.cpe[0](self.norm1(windows, i), i)
        memory.append((self.attn.split(self.k1(windows, i)), self.attn.split(self.v1(windows, i))))
        keys, values = (torch.cat(of, 2) for of in zip(*memory, strict=True))
        mixed = self.attn(self.q1(windows, i), keys, values, i)
        mixed = mixed.unflatten(0, (batch, height // size[0], width // size[1])).permute(0, 3, 1, 2, 4, 5)
        x = x + from_windows(mixed[..., None]).squeeze(-1)
        return x + self.mlp(self.norm2(x, i), i)


class ChannelTransformer(nn.Module):
    """The layers of T-CA, and what lifts slices [B, M/S, h, w] to C/S features; before the first stands a token that
    is made of the hyper features [B, 2·M, h, w].
    """

    def __init__(self, c: FTICConfig):
        super().__init__()
        channels = c.M * c.tca_ratio
        self.register_buffer("start_token", torch.zeros(1, c.M // c.num_slices, 1, 1))  # published, without use
        self.lift = SliceConv(c.M, channels, 3, c.num_slices)
        self.start_token_from_hyperprior = conv(2 * c.M, c.M // c.num_slices, 3, 1)
        self.layers = nn.ModuleList(
            ChannelBlock(channels, c.num_slices, c.tca_heads, c.tca_window) for _ in range(c.tca_depth)
        )


class ChannelEntropyModel(nn.Module):
    """T-CA and the heads behind it."""

    def __init__(self, c: FTICConfig):
        super().__init__()
        wide, slices = c.M * c.tca_ratio, c.num_slices
        self.TCA = ChannelTransformer(c)
        self.hyper_trans = nn.Linear(2 * c.M, 2 * c.M)
        self.entropy_parameters_net = nn.ModuleList(
            [
                SliceConv(wide + 2 * c.M, wide // 2, 3, slices), nn.GELU(),
                SliceConv(wide // 2, 3 * c.M, 3, slices), nn.GELU(),
                SliceConv(3 * c.M, 3 * c.M, 3, slices),
            ]
        )  # fmt: skip

    def parameters_of(
        self, i: int, token: Tensor, hyper: Tensor, memories: Sequence[list[tuple[Tensor, Tensor]]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """μ, σ and the residual before tanh of slice i, [B, M/S, h, w] each; `hyper` is its part of `hyper_trans`."""
        x = self.TCA.lift(token, i)
        for layer, memory in zip(self.TCA.layers, memories, strict=True):
            x = layer(x, i, memory)
        width = token.shape[1]  # M/S; features of one channel of y stand beside each other
        x = torch.cat([x.unflatten(1, (width, -1)), hyper.unflatten(1, (width, -1))], 2).flatten(1, 2)
        first, _, second, _, third = self.entropy_parameters_net
        x = third(F.gelu(second(F.gelu(first(x, i)), i)), i)
        return x.unflatten(1, (width, 3)).unbind(2)


def gaussian() -> IntegerGaussian:
    """The entropy model of y."""
    return IntegerGaussian(LEAST_SIGMA, FIRST_LEVEL)


class FTIC(SlicedModel):
    """The network; a part is a slice of channels."""

    registered_name = "ftic"
    make_transforms = staticmethod(transforms)
    stride = 128
    grid = "integer"

    def __init__(self, config: FTICConfig | None = None):
        super().__init__(config or FTICConfig())
        c = self.config
        self.slice_channels = (c.M // c.num_slices,) * c.num_slices
        self.g_a, self.g_s = transforms(c)
        hyper = (c.hyper_blocks, c.hyper_channels, c.hyper_heads, c.hyper_window)
        wide = c.hyper_channels
        self.h_a = nn.Sequential(ResidualDown(c.M, wide), *frequency_blocks(*hyper), conv(wide, c.N, 3))
        self.h_mean_s = nn.Sequential(ResidualUp(c.N, wide), *frequency_blocks(*hyper), subpixel(wide, c.M))
        self.h_scale_s = nn.Sequential(ResidualUp(c.N, wide), *frequency_blocks(*hyper), subpixel(wide, c.M))
        self.tca = ChannelEntropyModel(c)
        self.make_entropy_models(c.M, c.N)
        self.gaussian_conditional = gaussian()

    @property
    def beside_weights(self) -> str:
        """Heads and window of T-CA, which no tensor tells; nothing where they are as published."""
        heads, window = self.config.tca_heads, self.config.tca_window
        return "" if (heads, window) == (FTICConfig.tca_heads, FTICConfig.tca_window) else f"T-CA {heads} {window}"

    @property
    def walk_bytes(self) -> float:
        """Keys and values of all layers and slices; no tile has all that they and its norms look at."""
        c = self.config
        return max(8 * 2 * c.tca_depth * c.M * c.tca_ratio / self.y_stride**2, whole_map_bytes(c))

    def walk(
        self,
        z_hat: Tensor,
        quality: Quality,
        code_part: CodePart,
        y_hat: Tensor | None = None,
        memory: Memory = None,
    ) -> Walk:
        """Contexts are ŷ before residual prediction; they are computed once per slice also where ŷ is known."""
        z_hat = z_hat / self.gain("gain_z", quality, z_hat)
        (of_mu,) = self.bounded("h_mean_s", self.h_mean_s, (z_hat,), memory)
        (of_sigma,) = self.bounded("h_scale_s", self.h_scale_s, (z_hat,), memory)
        features = torch.cat([of_mu, of_sigma], 1)
        hyper = self.tca.hyper_trans(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).chunk(self.slices, 1)
        token = self.tca.TCA.start_token_from_hyperprior(features)
        memories: list[list] = [[] for _ in self.tca.TCA.layers]
        y_hats, mus, sigmas = [], [], []
        for i in range(self.slices):
            parameters = self.tca.parameters_of(i, token, hyper[i], memories)
            mu, sigma, residual = map(full_precision, parameters)
            y_hat_i = code_part(i, mu, sigma)
            token = y_hat_i.to(features.dtype)
            y_hats.append(y_hat_i + 0.5 * torch.tanh(residual))
            mus.append(mu)
            sigmas.append(sigma)
        return Walk(torch.cat(y_hats, 1), torch.cat(mus, 1), torch.cat(sigmas, 1))

    def set_first_guess(self, mu: Tensor, sigma: Tensor) -> None:
        start = torch.stack([mu, sigma, torch.zeros_like(mu)], 1).flatten()
        bias_of(self.tca.entropy_parameters_net[-1]).copy_(start)

    @classmethod
    def rename_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published checkpoints bring tables of another kind for y, or none."""
        own = {f"gaussian_conditional.{key}": value for key, value in gaussian().state_dict().items()}
        if own.keys() <= state.keys():
            return state
        return {key: value for key, value in state.items() if not key.startswith("gaussian_conditional.")} | own


register("ftic", FTIC, FTICConfig())
register(
    "ftic-small",
    FTIC,
    FTICConfig(
        stage_channels=(32, 48, 64),
        blocks=(1, 1, 2),
        heads=(4, 4, 4),
        hyper_channels=48,
        hyper_blocks=2,
        hyper_heads=4,
        M=80,
        N=48,
        tca_depth=4,
    ),
)
