"""MSC, masked compensation: what quantization took from a latent position, put back by one code of a codebook.

Paper: H. Kuang, W. Yang, Z. Guo, J. Liu, "Cross-Granularity Online Optimization with Masked Compensated Information
for Learned Image Compression", supplement, Table 1. Ours: networks for latents of other sizes, that codes live in the
domain where the quantization step is one whatever the quality, that in training the encoder is given the distortion's
negative gradient over its curvature in place of y − ŷ, and that in compression codes are chosen by J.

Shapes: `B` batch, `M` channels of y, `K` codes, `h w` size of y.

    code ─ its vector in the codebook ─ decoder ─ c;    y_hat + mask·c ─ synthesis

Codes are chosen in refinement (`tto.refine.compensation`); the encoder is for training alone (`tto.train.side_stages`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from base_models.tables import TOTAL
from tto.container import SectionType
from tto.side.codes import NO_CODE, decode_codes, encode_codes
from tto.side.side import ModulesPartCoder, Part

PUBLISHED_CHANNELS = 320
PUBLISHED_WIDTH = 256


def scaled_width(channels: int) -> int:
    """Width of the published networks in proportion to `channels`, a multiple of 8."""
    return max(8, 8 * round(PUBLISHED_WIDTH * channels / PUBLISHED_CHANNELS / 8))


def pointwise(channels: int, width: int, bias: bool) -> nn.Sequential:
    """Convolutions 1×1 of M – width – 2·width – width – M channels with GELU between."""
    sizes = (channels, width, 2 * width, width, channels)
    layers = []
    for size_in, size_out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Conv2d(size_in, size_out, 1, bias=bias), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class MSC(nn.Module):
    """Encoder, codebook and decoder. A decoder needs the last two alone: `compensations` is all it asks for.

    `encoder` maps the step that would lower distortion most, [B, M, h, w], to features of the same shape; `decoder` has
    no bias and maps zero to zero. `frequencies` are those with which codes are expected, as integers of sum 2^16, each
    at least 1.
    """

    not_matrices = ("codebook",)
    frequencies: Tensor

    def __init__(self, channels: int = PUBLISHED_CHANNELS, codes: int = 256, width: int | None = None):
        super().__init__()
        self.width = scaled_width(channels) if width is None else width
        self.encoder = pointwise(channels, self.width, bias=True)
        self.decoder = pointwise(channels, self.width, bias=False)
        self.codebook = nn.Parameter(torch.randn(codes, channels))
        self.register_buffer("frequencies", integer_frequencies(torch.ones(codes)))

    def compensations(self) -> Tensor:
        """The compensation of every code, [K, M]."""
        return self.decoder(self.codebook[:, :, None, None])[:, :, 0, 0]


@torch.no_grad()
def start_linear(network: nn.Sequential, directions: Tensor) -> None:
    """Makes the networks of MSC a projection onto orthonormal directions [w/2, M], w their width.

    As GELU(v) − GELU(−v) = v, a pair of units hands a value on unchanged. Units that are left over stay as they are,
    and unheard.
    """
    pairs = len(directions)
    keep = torch.cat([torch.eye(pairs), -torch.eye(pairs)])  # [2·pairs, pairs]
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    first, second, third, last = layers
    for layer in layers:
        if layer.bias is not None:
            layer.bias.zero_()
    first.weight[: 2 * pairs, :, 0, 0] = keep @ directions
    second.weight[: 2 * pairs, :, 0, 0] = _padded(keep @ keep.T, second.in_channels)
    third.weight.zero_()
    third.weight[: 2 * pairs, : 2 * pairs, 0, 0] = keep @ keep.T
    last.weight[:, :, 0, 0] = _padded((keep @ directions).T, last.in_channels)


def _padded(matrix: Tensor, columns: int) -> Tensor:
    return torch.nn.functional.pad(matrix, (0, columns - matrix.shape[1]))


def integer_frequencies(counts: Tensor) -> Tensor:
    """Counts [K], not negative → int64 [K] in proportion, each at least 1, of sum 2^16."""
    counts = counts.detach().cpu().double() + 1e-9
    spare = TOTAL - len(counts)
    shares = counts / counts.sum() * spare
    frequencies = shares.floor().long()
    largest_rest = (shares - frequencies).argsort(descending=True, stable=True)
    frequencies[largest_rest[: spare - int(frequencies.sum())]] += 1
    return frequencies + 1


# --- what travels in the file ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Compensation(Part):
    """`codes` int64 [h, w] with `NO_CODE` where the mask is off; `added` [1, M, h, w] is what they add to ŷ."""

    section = SectionType.COMPENSATION
    place = 0

    body: bytes = field(repr=False)
    codes: np.ndarray
    added: Tensor

    def on_latent(self, y_hat: Tensor) -> Tensor:
        return y_hat + self.added.to(y_hat.dtype)


class CompensationCoder(ModulesPartCoder):
    """`compensations` float32 [K, M] and `frequencies` int64 [K] are those of the model's codes."""

    part = Compensation

    def __init__(self, modules, device):
        super().__init__(modules, device)
        self.frequencies = modules.msc.frequencies.cpu().numpy().astype(np.int64)
        with torch.no_grad():
            self.compensations = modules.msc.compensations().float().to(device)

    def make(self, codes: np.ndarray) -> Compensation:
        """Of codes int64 [h, w]; with a mask that is off everywhere it says nothing."""
        body = self.sealed(encode_codes(codes, self.frequencies)) if (codes != NO_CODE).any() else b""
        return Compensation(body, codes, self._added(codes))

    def read(self, body: bytes, size: tuple[int, int]) -> Compensation:
        codes = decode_codes(self.opened(body), size, self.frequencies)
        return Compensation(body, codes, self._added(codes))

    def _added(self, codes: np.ndarray) -> Tensor:
        padded = torch.cat([self.compensations, torch.zeros_like(self.compensations[:1])])  # NO_CODE is the last
        return padded[torch.from_numpy(codes).to(self.device)].permute(2, 0, 1)[None].contiguous()
