"""Building blocks of DCAE's transforms: bottleneck stages and Swin groups.

Shapes: `B` batch, `C` channels, `H W` height and width of the feature map, `P` tokens in one window,
`D` channels of one attention head. Attribute names are those of the published checkpoints. `ends` of a
block names the layers without which it is the identity.

Sources: residual bottleneck (He 2015), shifted windows (Liu 2021), ResScale and convolutional gated linear unit
as used by DCAE (Lu 2025, §3.3 and supplement A).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tiles import Residual


def conv(in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 2) -> nn.Conv2d:
    """Convolution that divides the resolution by `stride`."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)


def deconv(in_channels: int, out_channels: int, kernel_size: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """Transposed convolution that multiplies the resolution by `stride`."""
    return nn.ConvTranspose2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, output_padding=stride - 1
    )


class MaskedConv(nn.Conv2d):
    """A convolution of which only the taps where `mask` is 1 see anything or get gradients."""

    mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)

    def plain(self) -> nn.Conv2d:
        """The same for evaluation, its mask in its weights."""
        plain = conv(self.in_channels, self.out_channels, self.kernel_size[0], 1).to(self.weight)
        plain.load_state_dict({"weight": self.weight * self.mask, "bias": bias_of(self)})
        return plain.requires_grad_(False)


def apply_masks(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with zeros where convolutions are masked: CompressAI's mask their weights only when called."""
    masked = dict(state)
    for key, mask in state.items():
        weight = key.removesuffix("mask") + "weight"
        if key.endswith(".mask") and weight in state:
            masked[weight] = state[weight] * mask
    return masked


def bias_of(layer: nn.Module) -> Tensor:
    """Of a convolution or linear layer that has one."""
    assert isinstance(layer.bias, Tensor)
    return layer.bias


class ResidualBottleneck(nn.Module):
    """1×1 → 3×3 → 1×1 at half the channels, plus the input."""

    ends = ("conv3",)

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels // 2, 1)
        self.conv2 = conv(channels // 2, channels // 2, 3, 1)
        self.conv3 = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


class DownStage(nn.Module):
    """Strided 5×5 convolution, then three residual bottlenecks: [B, C, H, W] → [B, C', H/2, W/2]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = conv(in_channels, out_channels)
        self.res1 = ResidualBottleneck(out_channels)
        self.res2 = ResidualBottleneck(out_channels)
        self.res3 = ResidualBottleneck(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.res3(self.res2(self.res1(self.conv(x))))


class UpStage(nn.Module):
    """Three residual bottlenecks, then a transposed 5×5 convolution: [B, C, H, W] → [B, C', 2H, 2W]."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.res1 = ResidualBottleneck(in_channels)
        self.res2 = ResidualBottleneck(in_channels)
        self.res3 = ResidualBottleneck(in_channels)
        self.conv = deconv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.res3(self.res2(self.res1(x))))


class ResScale(nn.Module):
    """Learned scale per channel on a shortcut, channels last."""

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class DepthwiseConv(nn.Module):
    """3×3 depth-wise convolution of channels-last tokens [B, H, W, C]."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvGLU(nn.Module):
    """Convolutional gated linear unit `fc2(GELU(DWConv(a)) · v)`, hidden width 2C."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = 2 * channels
        self.fc1 = nn.Linear(channels, 2 * hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.gelu(self.dwconv(gate)) * value)


@lru_cache(maxsize=64)
def window_regions(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor | None:
    """Which token pairs of each window may attend to each other.

    The map of `height × width` tokens is padded to multiples of `window` and rolled by `shift`. Tokens that were no
    neighbours before the roll, and padding, form regions of their own.

    Returns: bool [windows, 1, P, P], True where attention is allowed; None where it is allowed everywhere.
    """
    padded_h, padded_w = -(-height // window) * window, -(-width // window) * window
    if shift == 0 and (padded_h, padded_w) == (height, width):
        return None
    region = torch.zeros(padded_h, padded_w, dtype=torch.int32)
    region[height:], region[:, width:] = -1, -1
    region = region.roll((-shift, -shift), (0, 1))
    if shift:
        wrapped = torch.zeros_like(region)
        wrapped[-shift:] += 1
        wrapped[:, -shift:] += 2
        region = torch.where(region < 0, region, wrapped)
    tokens = region.view(padded_h // window, window, padded_w // window, window).transpose(1, 2)
    tokens = tokens.flatten(2).flatten(0, 1)  # [windows, P]
    return (tokens[:, :, None] == tokens[:, None, :]).unsqueeze(1).to(device)


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows, optionally shifted by half a window.

    Maps smaller than a window, or no multiple of it, are padded and the padding masked, so every size works and
    sizes that fit give the published numbers.
    """

    not_matrices = ("relative_position_params",)
    offsets: Tensor

    def __init__(self, channels: int, head_dim: int, window: int, shifted: bool):
        super().__init__()
        self.heads = channels // head_dim
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.embedding_layer = nn.Linear(channels, 3 * channels)
        self.relative_position_params = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(self.heads, 2 * window - 1, 2 * window - 1), std=0.02)
        )
        self.linear = nn.Linear(channels, channels)
        grid = np.indices((window, window)).reshape(2, -1)  # of no tensor: on the meta device that imports a compiler
        rows, columns = grid[:, :, None] - grid[:, None] + window - 1
        self.register_buffer("offsets", torch.from_numpy(rows * (2 * window - 1) + columns), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        size, heads = self.window, self.heads
        x = F.pad(x, (0, 0, 0, -w % size, 0, -h % size))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        rows, columns = x.shape[1] // size, x.shape[2] // size
        x = x.view(b, rows, size, columns, size, c).transpose(2, 3).reshape(b * rows * columns, size * size, c)
        qkv = self.embedding_layer(x).view(len(x), size * size, 3, heads, c // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B·windows, heads, P, D]: fused kernels want four dimensions
        bias = self.relative_position_params.flatten(1)[:, self.offsets]  # [heads, P, P]
        allowed = window_regions(h, w, size, self.shift, x.device)
        mask = bias.unsqueeze(0) if allowed is None else bias.masked_fill(~allowed.repeat(b, 1, 1, 1), -torch.inf)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
        x = self.linear(x.transpose(1, 2).flatten(2))
        x = x.view(b, rows, columns, size, size, c).transpose(2, 3).reshape(b, rows * size, columns * size, c)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :h, :w]


class SwinLayer(nn.Module):
    """Window attention and ConvGLU, each behind a layer norm and a scaled shortcut; [B, H, W, C] in and out."""

    ends = ("msa.linear", "mlp.fc2")

    def __init__(self, channels: int, head_dim: int, window: int, shifted: bool):
        super().__init__()
        self.ln1 = nn.LayerNorm(channels)
        self.msa = WindowAttention(channels, head_dim, window, shifted)
        self.ln2 = nn.LayerNorm(channels)
        self.mlp = ConvGLU(channels)
        self.res_scale_1 = ResScale(channels)
        self.res_scale_2 = ResScale(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.res_scale_1(x) + self.msa(self.ln1(x))
        return self.res_scale_2(x) + self.mlp(self.ln2(x))


class OnMaps(nn.Module):
    """A layer of tokens [B, H, W, C] as one of maps [B, C, H, W]."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SwinGroup(Residual):
    """`layers` Swin layers, plain and shifted in turn, a 3×3 convolution, plus the input; [B, C, H, W] in and out."""

    ends = ("conv",)

    def __init__(self, channels: int, head_dim: int, window: int, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(SwinLayer(channels, head_dim, window, shifted=i % 2 == 1) for i in range(layers))
        self.conv = conv(channels, channels, 3, 1)

    def chain(self) -> list[nn.Module]:
        return [*(OnMaps(layer) for layer in self.layers), self.conv]
