"""Residual blocks, GDN, GSDN and gated attention, under the names of the published checkpoints that use them.

Shapes: `B` batch, `C` channels, `H W` height and width of the feature map; everything maps [B, C, H, W].

Sources: generalized divisive normalization (Ballé 2016, arXiv:1511.06281), with subtraction (Qian 2021,
arXiv:2010.08321); residual blocks, sub-pixel convolutions and the simplified attention of Cheng 2020
(arXiv:2001.01568), as CompressAI's checkpoints name them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv
from .entropy_models import LowerBound


class NonNegative(nn.Module):
    """Value of a parameter that is stored as a root: `max(p, bound)² − pedestal`, at least `minimum`."""

    pedestal: Tensor

    def __init__(self, minimum: float = 0.0, offset: float = 2**-18):
        super().__init__()
        self.register_buffer("pedestal", torch.tensor([offset**2]))
        self.lower_bound = LowerBound((minimum + offset**2) ** 0.5)

    def stored(self, value: Tensor) -> Tensor:
        """What to store for a value ≥ 0."""
        return (value + self.pedestal).sqrt()

    def forward(self, stored: Tensor) -> Tensor:
        return self.lower_bound(stored) ** 2 - self.pedestal


class GDN(nn.Module):
    """`x_i / sqrt(β_i + Σ_j γ_ij x_j²)`, or its approximate inverse, which multiplies."""

    not_matrices = ("gamma",)

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.beta_reparam = NonNegative(minimum=1e-6)
        self.gamma_reparam = NonNegative()
        self.beta = nn.Parameter(self.beta_reparam.stored(torch.ones(channels)))
        self.gamma = nn.Parameter(self.gamma_reparam.stored(0.1 * torch.eye(channels)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor(x)

    def factor(self, x: Tensor) -> Tensor:
        """What x is multiplied by."""
        gamma, beta = self.gamma_reparam(self.gamma), self.beta_reparam(self.beta)
        energy = F.conv2d(x**2, gamma[:, :, None, None], beta)
        return energy.sqrt() if self.inverse else energy.rsqrt()

    @torch.no_grad()
    def set_identity(self) -> None:
        """Lets x pass as it is."""
        self.beta.copy_(self.beta_reparam.stored(torch.ones_like(self.beta)))
        self.gamma.copy_(self.gamma_reparam.stored(torch.zeros_like(self.gamma)))


class GSDN(GDN):
    """`(x_i − ν_i − Σ_j τ_ij x_j) / sqrt(β_i + Σ_j γ_ij x_j²)`, or its approximate inverse (Qian 2021, §4).

    The inverse multiplies, then adds; both factor and term come from what it is given (Qian 2021, Eq. 6). **[ours]** ν
    and τ start at zero and are free, as the paper names no constraint; the authors' code keeps them above zero.
    """

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__(channels, inverse)
        self.nu = nn.Parameter(torch.zeros(channels))
        self.tau = nn.Parameter(torch.zeros(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        shift = F.conv2d(x, self.tau[:, :, None, None], self.nu)
        return x * self.factor(x) + shift if self.inverse else (x - shift) * self.factor(x)

    @torch.no_grad()
    def set_identity(self) -> None:
        super().set_identity()
        self.nu.zero_()
        self.tau.zero_()


def subpixel(in_channels: int, out_channels: int) -> nn.Sequential:
    """3×3 convolution and pixel shuffle: doubles the resolution."""
    return nn.Sequential(conv(in_channels, 4 * out_channels, 3, 1), nn.PixelShuffle(2))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with leaky ReLU, plus the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv(channels, channels, 3, 1)
        self.conv2 = conv(channels, channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x))))


class ResidualDown(nn.Module):
    """Residual block whose first convolution halves the resolution; GDN at its end."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3)
        self.conv2 = conv(out_channels, out_channels, 3, 1)
        self.gdn = GDN(out_channels)
        self.skip = conv(in_channels, out_channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """oneDNN's backward pass of a strided 1×1 convolution writes beyond its memory where channels come last."""
        return self.skip(x[..., ::2, ::2]) + self.gdn(self.conv2(F.leaky_relu(self.conv1(x))))


class ResidualUp(nn.Module):
    """Residual block whose first convolution doubles the resolution; inverse GDN at its end."""

    ends = ("conv",)

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.subpel_conv = subpixel(in_channels, out_channels)
        self.conv = conv(out_channels, out_channels, 3, 1)
        self.igdn = GDN(out_channels, inverse=True)
        self.upsample = subpixel(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(x) + self.igdn(self.conv(F.leaky_relu(self.subpel_conv(x))))


class ResidualUnit(nn.Module):
    """1×1 → 3×3 → 1×1 at half the channels, plus the input, then ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(
            conv(channels, half, 1, 1), nn.ReLU(), conv(half, half, 3, 1), nn.ReLU(), conv(half, channels, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv(x))


class GatedAttention(nn.Module):
    """x + a · sigmoid(b), where branch b may see a wider neighbourhood of x than branch a."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_a = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))
        self.conv_b = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)), conv(channels, channels, 1, 1))

    def forward(self, x: Tensor, surroundings: Tensor | None = None) -> Tensor:
        gate = self.conv_b(x if surroundings is None else surroundings)
        return x + self.conv_a(x) * torch.sigmoid(gate)
