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

import copy
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from tto.container import SectionType, section_name
from tto.errors import CorruptFile, WrongLength
from tto.side.bits import LARGEST_LEVEL
from tto.side.side import ModulesPartCoder, Part

SYNTAX_SIZE = 9
"""Values of a syntax."""
LARGEST_RICE = 7
LONGEST_SYNTAX = 1 + -(-SYNTAX_SIZE * (2 * LARGEST_LEVEL + 1 + LARGEST_RICE) // 8)  # bytes
SCALE = 0.05
"""Entries of K for a syntax of one, where training starts."""

SMALLEST_RIDGE = 1e-6


class DDTEncoder(nn.Module):
    """Picture → syntax, from the means of the picture and of two feature maps."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.head = nn.Conv2d(3 + 32 + 64, SYNTAX_SIZE, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

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
        self.hidden = nn.Sequential(nn.Linear(SYNTAX_SIZE, 128), nn.GELU(), nn.Linear(128, 256), nn.GELU())
        self.head = nn.Linear(256, 9)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, syntax: Tensor) -> Tensor:
        """Syntax [B, 9] → matrix [B, 3, 3]."""
        return self.head(self.hidden(syntax)).unflatten(1, (3, 3))

    @torch.no_grad()
    def start_linear(self, samples: int = 4096) -> None:
        """Fits the last layer so that K is nearly `SCALE` times the syntax, and zero for zero.

        A syntax can then become any small matrix, as it should where it is optimized for one picture. Samples are drawn
        on the CPU, and fitted there.
        """
        syntax = torch.randn(samples, SYNTAX_SIZE)
        hidden = copy.deepcopy(self.hidden).cpu()
        features, rest = hidden(syntax), hidden(torch.zeros(1, SYNTAX_SIZE))
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


# --- what travels in the file ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Syntax:
    """The nine values as the file has them: `levels` (−127…127) times 2^−`exponent` (0…15)."""

    levels: tuple[int, ...]
    exponent: int

    @property
    def values(self) -> Tensor:
        """[1, 9] float64, exact."""
        return torch.tensor([self.levels], dtype=torch.float64) * 2.0**-self.exponent


def encode_syntax(syntax: Syntax) -> bytes:
    """One byte with exponent and Rice parameter, then nine Rice codes, most significant bit first."""
    numbers = [2 * level if level >= 0 else -2 * level - 1 for level in syntax.levels]
    rice = min(range(LARGEST_RICE + 1), key=lambda k: sum((number >> k) + 1 + k for number in numbers))
    bits = "".join("1" * (n >> rice) + f"{n & ((1 << rice) - 1):0{rice + 1}b}" for n in numbers)
    bits += "0" * (-len(bits) % 8)
    return bytes([syntax.exponent << 4 | rice]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def decode_syntax(data: bytes) -> Syntax:
    """Inverse of `encode_syntax`. Raises `CorruptFile`."""
    name = section_name(SectionType.SYNTAX)
    exponent, rice = data[0] >> 4, data[0] & 15
    if rice > LARGEST_RICE:
        raise CorruptFile(name, f"Rice parameter {rice}")
    if len(data) > LONGEST_SYNTAX:
        raise WrongLength(name, f"{len(data)} bytes")
    bits = "".join(f"{byte:08b}" for byte in data[1:])
    levels, position = [], 0
    for _ in range(SYNTAX_SIZE):
        end = bits.find("0", position)
        if end < 0 or end + 1 + rice > len(bits):
            raise WrongLength(name, "it ends inside a number")
        number = (end - position) << rice | int("0" + bits[end + 1 : end + 1 + rice], 2)
        levels.append(-(number + 1) // 2 if number % 2 else number // 2)
        position = end + 1 + rice
    if max(map(abs, levels)) > LARGEST_LEVEL:
        raise CorruptFile(name, "a number is out of range")
    if len(bits) - position >= 8 or "1" in bits[position:]:
        raise WrongLength(name, "something follows the last number")
    return Syntax(tuple(levels), exponent)


@dataclass(frozen=True, eq=False)
class Transform(Part):
    """`matrix` [1, 3, 3] float64, on the CPU, is K."""

    section = SectionType.SYNTAX
    place = 20

    body: bytes = field(repr=False)
    syntax: Syntax
    matrix: Tensor

    def on_picture(self, x_hat: Tensor) -> Tensor:
        return apply_transform(x_hat, self.matrix.to(x_hat))


class TransformCoder(ModulesPartCoder):
    """`decoder` makes K of a syntax, in float64 on the CPU."""

    part = Transform

    def __init__(self, modules, device):
        super().__init__(modules, device)
        self.decoder = copy.deepcopy(modules.ddt.decoder).cpu().double().eval().requires_grad_(False)

    def make(self, syntax: Syntax) -> Transform:
        return self._part(self.sealed(encode_syntax(syntax)), syntax)

    def read(self, body: bytes, size: tuple[int, int]) -> Transform:
        return self._part(body, decode_syntax(self.opened(body)))

    @torch.no_grad()
    def _part(self, body: bytes, syntax: Syntax) -> Transform:
        return Transform(body, syntax, self.decoder(syntax.values))
