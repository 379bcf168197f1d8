"""Starting point of a new network: a block transform fitted to images, instead of random filters **[ours]**.

The strided layers of g_a start as a cascade of 2×2 rearrangements and principal-component projections, those of
g_s as their transposes, and everything residual starts as zero. So an untrained network already is an orthonormal
transform coder of 16×16 blocks, with channels in order of variance, and training starts where the discrete cosine
transform would stand.

Source of the idea: principal components minimize the error of a linear autoencoder (Baldi & Hornik 1989).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import BaseModel
from .blocks import bias_of
from .residual import GatedAttention, ResidualDown, ResidualUp

GRAY = 0.5
Z_STD = 3.0
CLOSED_GATE = -4.0
LEAK = 0.01  # of a leaky ReLU

Down = nn.Conv2d | ResidualDown
Up = nn.ConvTranspose2d | ResidualUp | nn.Sequential


class FittedModel(BaseModel):
    """A base model that can start so."""

    g_a: nn.Sequential
    h_a: nn.Sequential

    def init_from_images(self, x: Tensor) -> None:
        init_from_images(self, x)

    def strides(self) -> list[tuple[Down, Up]]:
        """Layers of g_a that halve the resolution and those of g_s that undo it, from the image to y."""
        downs = [layer for layer in self.g_a if isinstance(layer, Down)]
        ups = [layer for layer in self.g_s if isinstance(layer, Up)]
        return list(zip(downs, reversed(ups), strict=True))

    @abstractmethod
    def set_first_guess(self, mu: Tensor, sigma: Tensor) -> None:
        """Lets μ and σ [M] of a new network start there."""


@torch.no_grad()
def init_from_images(model: FittedModel, x: Tensor, gain: float = 1.0) -> None:
    """Fits a new network to crops x [B, 3, H, W] in [0, 1], H and W multiples of 64; some hundred crops suffice.

    y gets the scale that its quantization step asks for at the middle quality, z a standard deviation of 3: a
    hyper-latent that rounds to zero everywhere would stay so. `gain` is what y is multiplied by at that quality in a
    model whose gains are not to be fitted.
    """
    _silence_residuals(model.g_a)
    _silence_residuals(model.g_s)
    strides = model.strides()
    middle = math.exp(sum(map(math.log, model.config.lambdas)) / model.qualities)
    signal, basis = x - GRAY, x.new_zeros(0)
    for down, up in strides:
        blocks = F.pixel_unshuffle(signal, 2)
        basis = _principal_components(blocks, min(_outputs(down), _inputs(up), blocks.shape[1]))  # [out, C·4]
        signal = torch.einsum("ok,bkhw->bohw", basis, blocks)
        _set_down(down, basis)
        _set_up(up, basis)
    cast(nn.Conv2d, strides[-1][0]).weight[len(basis) :] = 0  # else noise would be coded
    _scale_latent(model, *strides[-1], _latent_scale(middle) / gain)
    first, last = _first_layer(strides[0][0]), _linear_layer(strides[0][1])
    bias_of(first).copy_(-GRAY * first.weight.sum((1, 2, 3)))
    bias_of(last).fill_(GRAY)
    _fit_entropy_model(model, x)


def _silence_residuals(transform: nn.Module) -> None:
    """Residual branches start at zero, so that blocks are identities; gates start nearly closed."""
    for block in transform.modules():
        for name in getattr(block, "ends", ()):
            last = cast(nn.Conv2d, block.get_submodule(name))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(bias_of(last))
        if isinstance(block, GatedAttention):
            gate = cast(nn.Conv2d, block.conv_b[-1])
            nn.init.zeros_(gate.weight)
            nn.init.constant_(bias_of(gate), CLOSED_GATE)


def _principal_components(blocks: Tensor, count: int) -> Tensor:
    """The `count` directions of largest energy of vectors [B, K, h, w], orthonormal rows [count, K].

    In float64, which not every device has: on the CPU.
    """
    vectors = blocks.permute(1, 0, 2, 3).flatten(1).cpu().double()
    _, directions = torch.linalg.eigh(vectors @ vectors.T / vectors.shape[1])
    return directions.flip(1)[:, :count].T.to(blocks)


def _latent_scale(lambda_: float) -> float:
    """1/Δ at the balance of λ·255²·Δ²/12, the distortion, and −3·log2(Δ), the bits per pixel of three samples."""
    return math.sqrt(lambda_ * 255**2 * math.log(2) / 18)


def _scale_latent(model: FittedModel, down: Down, up: Up, scale: float) -> None:
    """y in units of the quantization step: by its gains where the model has them, else by the filters."""
    if hasattr(model, "gain_y"):
        cast(Any, model).gain_y.log_gain.add_(math.log(scale))
    else:
        cast(nn.Conv2d, down).weight.mul_(scale)
        _linear_layer(up).weight.div_(scale)


def _outputs(down: Down) -> int:
    """How many components a strided layer can pass on as they are; a rectifier between needs two channels for each."""
    return down.conv1.out_channels // 2 if isinstance(down, ResidualDown) else down.out_channels


def _inputs(up: Up) -> int:
    """How many components the layer that undoes it takes: fewer where the synthesis is the smaller transform."""
    return _linear_layer(up).in_channels


def _first_layer(down: Down) -> nn.Conv2d:
    return down.conv1 if isinstance(down, ResidualDown) else down


def _linear_layer(up: Up) -> nn.Conv2d | nn.ConvTranspose2d:
    """The only layer on the way from input to output once residual branches are silent."""
    up = up.upsample if isinstance(up, ResidualUp) else up
    return cast(nn.Conv2d, up[0]) if isinstance(up, nn.Sequential) else up


def _set_down(down: Down, basis: Tensor) -> None:
    """Puts an orthonormal 2×2-block projection [out, C·4] into a strided layer.

    The two taps after the middle cover the block itself. Channels beyond the basis keep their random filters, unread.
    """
    if not isinstance(down, ResidualDown):
        _set_taps(down, basis)
        return
    outputs = len(basis)
    _set_taps(down.conv1, torch.stack([basis, -basis], 1).flatten(0, 1))
    down.conv2.weight[:outputs] = 0
    bias_of(down.conv2).zero_()
    for i in range(outputs):
        down.conv2.weight[i, 2 * i : 2 * i + 2, 1, 1] = torch.tensor([1.0, -1.0]) / (1 + LEAK)
    down.gdn.gamma.copy_(down.gdn.gamma_reparam.stored(torch.zeros_like(down.gdn.gamma)))
    nn.init.zeros_(down.skip.weight)
    nn.init.zeros_(bias_of(down.skip))


def _set_taps(conv: nn.Conv2d, basis: Tensor) -> None:
    outputs, inputs, middle = basis.shape[0], basis.shape[1] // 4, conv.kernel_size[0] // 2
    conv.weight[:outputs] = 0
    conv.weight[:outputs, :inputs, middle : middle + 2, middle : middle + 2] = basis.view(outputs, inputs, 2, 2)
    bias_of(conv).zero_()


def _set_up(up: Up, basis: Tensor) -> None:
    """The transpose of a projection, in the layer that undoes it."""
    layer, outputs = _linear_layer(up), len(basis)
    if isinstance(layer, nn.ConvTranspose2d):
        inputs = basis.shape[1] // 4
        layer.weight[:, :inputs] = 0
        layer.weight[:outputs, :inputs, 2:4, 2:4] = basis.view(outputs, inputs, 2, 2)
    else:
        layer.weight[: basis.shape[1]] = 0
        layer.weight[: basis.shape[1], :outputs, 1, 1] = basis.T
    bias_of(layer).zero_()


def _fit_entropy_model(model: FittedModel, x: Tensor) -> None:
    """First guesses of μ and σ per channel, and the scale of z, at the middle quality."""
    if model.z_prior is None:
        return
    y = model.analysis(x, model.middle_quality)
    model.set_first_guess(y.mean((0, 2, 3)), y.std((0, 2, 3)).clamp(min=0.2))
    fit_last_layer(cast(nn.Conv2d, model.h_a[-1]), lambda: model.hyper_analysis(y, model.middle_quality))


def fit_last_layer(last: nn.Conv2d | nn.Linear, output: Callable[[], Tensor]) -> None:
    """Gives `output` [B, N, …], linear in this layer, the deviation of z around a mean of 0 in every channel."""
    values = output().flatten(2)
    last.weight.mul_(Z_STD / (values - values.mean((0, 2), keepdim=True)).std())
    bias_of(last).zero_()
    bias_of(last).sub_(output().flatten(2).mean((0, 2)))
