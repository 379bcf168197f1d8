"""Starting point of a new DCAE: a block transform fitted to images, instead of random filters **[ours]**.

The strided convolutions of g_a start as a cascade of 2×2 rearrangements and principal-component projections, those of
g_s as their transposes, and everything residual starts as zero. So an untrained network already is an orthonormal
transform coder of 16×16 blocks, with channels in order of variance, and training starts where the discrete cosine
transform would stand.

Source of the idea: principal components minimize the error of a linear autoencoder (Baldi & Hornik 1989).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ResidualBottleneck, SwinGroup, SwinLayer

if TYPE_CHECKING:
    from .dcae import DCAE

GRAY = 0.5
Z_STD = 3.0


@torch.no_grad()
def init_from_images(model: DCAE, x: Tensor) -> None:
    """Fits a new network to crops x [B, 3, H, W] in [0, 1], H and W multiples of 64; some hundred crops suffice.

    y gets the scale that its quantization step asks for at the middle quality, z a standard deviation of 3: a
    hyper-latent that rounds to zero everywhere would stay so.
    """
    _silence_residuals(model.g_a)
    _silence_residuals(model.g_s)
    downs = [model.g_a[0].conv, model.g_a[2].conv, model.g_a[4].conv, model.g_a[6]]
    ups = [model.g_s[0], model.g_s[2].conv, model.g_s[4].conv, model.g_s[6].conv]
    middle = math.exp(sum(map(math.log, model.config.lambdas)) / len(model.config.lambdas))
    signal = x - GRAY
    for down, up in zip(downs, reversed(ups), strict=True):
        blocks = F.pixel_unshuffle(signal, 2)
        basis = _principal_components(blocks, min(down.out_channels, blocks.shape[1]))  # [out, C·4]
        signal = torch.einsum("ok,bkhw->bohw", basis, blocks)
        _set_block_transform(down, up, basis)
    _scale_latent(model, _latent_scale(middle))
    model.g_a[0].conv.bias[:12] = -GRAY * model.g_a[0].conv.weight[:12].sum((1, 2, 3))
    model.g_s[-1].conv.bias.fill_(GRAY)
    _fit_entropy_model(model, x)


def _silence_residuals(transform: nn.Module) -> None:
    """Residual branches start at zero, so that blocks are identities."""
    for block in transform.modules():
        lasts = {
            ResidualBottleneck: lambda b: [b.conv3],
            SwinGroup: lambda b: [b.conv],
            SwinLayer: lambda b: [b.msa.linear, b.mlp.fc2],
        }.get(type(block), lambda b: [])(block)
        for last in lasts:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


def _principal_components(blocks: Tensor, count: int) -> Tensor:
    """The `count` directions of largest energy of vectors [B, K, h, w], orthonormal rows [count, K]."""
    vectors = blocks.permute(1, 0, 2, 3).flatten(1).double()
    _, directions = torch.linalg.eigh(vectors @ vectors.T / vectors.shape[1])
    return directions.flip(1)[:, :count].T.to(blocks.dtype)


def _latent_scale(lambda_: float) -> float:
    """1/Δ at the balance of λ·255²·Δ²/12, the distortion, and −3·log2(Δ), the bits per pixel of three samples."""
    return math.sqrt(lambda_ * 255**2 * math.log(2) / 18)


def _scale_latent(model: DCAE, scale: float) -> None:
    """y in units of the quantization step: by its gains where the model has them, else by the filters."""
    if model.qualities > 1:
        model.gain_y.log_gain += math.log(scale)
    else:
        model.g_a[-1].weight.mul_(scale)
        model.g_s[0].weight.div_(scale)


def _set_block_transform(down: nn.Conv2d, up: nn.ConvTranspose2d, basis: Tensor) -> None:
    """Puts an orthonormal 2×2-block projection into a strided convolution, and its transpose into the inverse one.

    Taps 2 and 3 of the five cover the block itself. Channels beyond the basis keep their random filters, unread.
    """
    outputs, inputs = basis.shape[0], basis.shape[1] // 4
    taps = basis.view(outputs, inputs, 2, 2)
    down.weight[:outputs] = 0
    down.weight[:outputs, :inputs, 2:4, 2:4] = taps
    down.bias.zero_()
    up.weight[:, :inputs] = 0
    up.weight[:outputs, :inputs, 2:4, 2:4] = taps
    up.bias.zero_()


def _fit_entropy_model(model: DCAE, x: Tensor) -> None:
    """First guesses of μ and σ per channel, and the scale of z, at the middle quality."""
    middle = (model.qualities + 1) / 2
    y = model.analysis(x, middle)
    for i, part in enumerate(model.split_y(y)):
        model.cc_mean_transforms[i][-1].bias.copy_(part.mean((0, 2, 3)))
        model.cc_scale_transforms[i][-1].bias.copy_(part.std((0, 2, 3)).clamp(min=0.2))
    last = model.h_a[-1]
    z = model.hyper_analysis(y, middle)
    last.weight.mul_(Z_STD / (z - z.mean((0, 2, 3), keepdim=True)).std())
    last.bias.zero_()
    last.bias.sub_(model.hyper_analysis(y, middle).mean((0, 2, 3)))
