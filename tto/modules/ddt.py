"""DDT, the data-dependent transform: a 3×3 colour matrix per picture, told in nine values.

Paper: H. Kuang, W. Yang, Z. Guo, J. Liu, "Cross-Granularity Online Optimization with Masked Compensated Information
for Learned Image Compression", supplement, Table 2, after D. Wang, W. Yang, Y. Hu, J. Liu, "Neural Data-Dependent
Transform for Learned Image Compression", CVPR 2022. Ours: a new DDT changes nothing, as its last layer is zero
or (`start_linear`) its syntax.

Shapes: `B` batch, `H W` size of the picture.

    x ─ encoder ─ syntax (9) ─ decoder ─ K (3×3) ─┐
                                      x_hat ──────┴─ x_hat + K·x_hat
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SYNTAX = 9
"""Values of a syntax."""
SCALE = 0.05
"""Entries of K for a syntax of one, where training starts."""

SMALLEST_RIDGE = 1e-6


class DDTEncoder(nn.Module):
    """Picture → syntax, from the means of the picture and of two feature maps."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.head = nn.Conv2d(3 + 32 + 64, SYNTAX, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Picture [B, 3, H, W] in [0, 1] → syntax [B, 9]."""
        low = self.conv1(x).relu()
        high = self.conv2(low).relu()
        means = torch.cat([maps.mean((2, 3), keepdim=True) for maps in (x, low, high)], dim=1)
        return self.head(means)[:, :, 0, 0]


class DDTDecoder(nn.Module):
    """Syntax → matrix."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(SYNTAX, 128), nn.GELU(), nn.Linear(128, 256), nn.GELU())
        self.head = nn.Linear(256, 9)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, syntax: Tensor) -> Tensor:
        """Syntax [B, 9] → matrix [B, 3, 3]."""
        return self.head(self.hidden(syntax)).unflatten(1, (3, 3))

    @torch.no_grad()
    def start_linear(self, samples: int = 4096) -> None:
        """Fits the last layer so that K is nearly `SCALE` times the syntax, and zero for zero.

        A syntax can then become any small matrix, as it should where it is optimized for one picture.
        """
        syntax = torch.randn(samples, SYNTAX)
        features = self.hidden(syntax)
        rest = self.hidden(torch.zeros(1, SYNTAX))
        weight = torch.linalg.lstsq(features - rest, SCALE * syntax).solution
        self.head.weight.copy_(weight.T)
        self.head.bias.copy_(-(rest @ weight)[0])


class DDT(nn.Module):
    """Encoder and decoder; only the syntax between them is sent."""

    def __init__(self):
        super().__init__()
        self.encoder = DDTEncoder()
        self.decoder = DDTDecoder()


def best_matrix(x_hat: Tensor, x: Tensor) -> Tensor:
    """K [B, 3, 3] with the least squared error of x̂ + K·x̂ against x, both [B, 3, H, W]: what no syntax can beat."""
    with torch.autocast(x.device.type, enabled=False):
        pixels, errors = x_hat.float().flatten(2), (x - x_hat.float()).flatten(2)
        squares = pixels @ pixels.mT / pixels.shape[-1] + SMALLEST_RIDGE * torch.eye(3, device=x.device)
        return torch.linalg.solve(squares, pixels @ errors.mT / pixels.shape[-1]).mT


def apply_transform(x_hat: Tensor, matrix: Tensor) -> Tensor:
    """x̂ + K·x̂ of every pixel: x̂ [B, 3, H, W] with K [B, 3, 3], not clamped."""
    return x_hat + torch.einsum("bij,bjhw->bihw", matrix, x_hat)
