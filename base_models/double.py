"""Convolutions as matrix products: PyTorch's own are several times slower than its matrix products in float64.

A map is a matrix [C, H · W], and the map moved by whole rows is a view of it. So each row of a filter's taps is one
product of such a view with all taps of that row, [taps · O, C], summed in place over the rows; what the taps of each
column gave is then moved sideways and added. Nothing large is copied but the input of a strided convolution, once, into
s² maps of every s-th row and column; a transposed one gives such maps. A depth-wise tap is a multiply–add.

With padding p, tap k lies `divmod(k − p, s)` = (whole positions, phase) from where the filter stands.
Shapes: `B` batch, `C` channels in, `O` channels out, `H W` height and width of the maps, `s` stride.
"""

from __future__ import annotations

from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def as_matrix_products(module: AnyModule) -> AnyModule:
    """Replaces the convolutions inside `module`, for evaluation without gradients; results differ by rounding only.

    What stays: what is grouped but not depth-wise, is dilated, is padded otherwise than with zeros to H/s or s·H, or
    is of a class of its own.
    """
    for name, child in module.named_children():
        replacement = _replacement(child)
        if replacement is None:
            as_matrix_products(child)
        else:
            setattr(module, name, replacement)
    return module


def _replacement(conv: nn.Module) -> nn.Module | None:
    if type(conv) is not nn.Conv2d and type(conv) is not nn.ConvTranspose2d:
        return None
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str) or conv.dilation != (1, 1):
        return None
    if conv.stride[0] != conv.stride[1]:
        return None
    if type(conv) is nn.ConvTranspose2d:
        left_over = tuple(conv.stride[d] + 2 * conv.padding[d] - conv.kernel_size[d] for d in (0, 1))
        return ProductTransposedConv(conv) if conv.groups == 1 and conv.output_padding == left_over else None
    if any(conv.kernel_size[d] != 2 * conv.padding[d] + 1 for d in (0, 1)):
        return None
    assert isinstance(conv, nn.Conv2d)
    if conv.groups == 1:
        return ProductConv(conv)
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    return DepthwiseSum(conv) if depthwise and conv.stride == (1, 1) else None


def _moved(size: int, shift: int) -> tuple[slice, slice]:
    """Of a line, the positions that have one `shift` further on, and those."""
    shift = max(-size, min(size, shift))
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))


def _add_rows(total: Tensor, weight: Tensor, x: Tensor, shift: int) -> None:
    """total[:, :, row] += weight · x[:, :, row + shift]: [B, T, H, W], [T, C] and [B, C, H, W]."""
    height, width = x.shape[2:]
    to, source = (slice(rows.start * width, rows.stop * width) for rows in _moved(height, shift))
    for out, picture in zip(total.flatten(2), x.flatten(2), strict=True):
        out[:, to].addmm_(weight, picture[:, source])


def _add_columns(total: Tensor, part: Tensor, shift: int) -> None:
    """total[..., column] += part[..., column + shift]."""
    to, source = _moved(total.shape[-1], shift)
    total[..., to] += part[..., source]


class ProductConv(nn.Module):
    """A dense convolution: [B, C, H, W] → [B, O, H/s, W/s]."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        (kh, kw), self.stride = conv.kernel_size, conv.stride[0]
        self.rows = [divmod(i - kh // 2, self.stride) for i in range(kh)]
        columns = [divmod(j - kw // 2, self.stride) for j in range(kw)]
        self.columns = [[shift for shift, of in columns if of == phase] for phase in range(self.stride)]
        taps = conv.weight.detach().permute(2, 3, 0, 1)  # [kh, kw, O, C]
        for phase in range(self.stride):
            chosen = [j for j in range(kw) if columns[j][1] == phase]
            self.register_buffer(f"taps{phase}", taps[:, chosen].flatten(1, 2).contiguous())  # [kh, taps · O, C]
        self.bias = conv.bias
        self.outputs = conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        s = self.stride
        if s > 1:
            x = F.pad(x, (0, -x.shape[3] % s, 0, -x.shape[2] % s))
        batch, _, height, width = x.shape
        size = (height // s, width // s)
        total = x.new_zeros(batch, self.outputs, *size)
        if self.bias is not None:
            total += self.bias[:, None, None]
        for phase, shifts in enumerate(self.columns):
            part = x.new_zeros(batch, len(shifts) * self.outputs, *size)
            for weight, (shift, row_phase) in zip(self.get_buffer(f"taps{phase}"), self.rows, strict=True):
                _add_rows(part, weight, x[:, :, row_phase::s, phase::s], shift)
            for of_column, shift in zip(part.split(self.outputs, 1), shifts, strict=True):
                _add_columns(total, of_column, shift)
        return total


class ProductTransposedConv(nn.Module):
    """A dense transposed convolution: [B, C, H, W] → [B, O, s·H, s·W]."""

    taps: Tensor

    def __init__(self, conv: nn.ConvTranspose2d):
        super().__init__()
        (kh, kw), self.stride = conv.kernel_size, conv.stride[0]
        padding = cast(tuple[int, int], conv.padding)
        self.rows = [divmod(i - padding[0], self.stride) for i in range(kh)]
        self.columns = [divmod(j - padding[1], self.stride) for j in range(kw)]
        taps = conv.weight.detach().permute(2, 3, 1, 0)  # [kh, kw, O, C]
        self.register_buffer("taps", taps.flatten(1, 2).contiguous())
        self.bias = conv.bias
        self.outputs = conv.out_channels

    def forward(self, x: Tensor) -> Tensor:
        s, (batch, _, height, width) = self.stride, x.shape
        total = x.new_zeros(batch, self.outputs, s, s, height, width)
        if self.bias is not None:
            total += self.bias[:, None, None, None, None]
        for row_phase in range(s):
            part = x.new_zeros(batch, len(self.columns) * self.outputs, height, width)
            for weight, (shift, phase) in zip(self.taps, self.rows, strict=True):
                if phase == row_phase:
                    _add_rows(part, weight, x, -shift)
            for of_column, (shift, phase) in zip(part.split(self.outputs, 1), self.columns, strict=True):
                _add_columns(total[:, :, row_phase, phase], of_column, -shift)
        return F.pixel_shuffle(total.flatten(1, 3), s)


class DepthwiseSum(nn.Module):
    """A depth-wise convolution of stride 1: [B, C, H, W] in and out, in the input's layout."""

    taps: Tensor

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.register_buffer("taps", conv.weight.detach()[:, 0].permute(1, 2, 0).contiguous())  # [kh, kw, C]
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        (kh, kw), (height, width) = self.taps.shape[:2], x.shape[2:]
        total = torch.zeros_like(x)
        if self.bias is not None:
            total += self.bias[:, None, None]
        for i, row in enumerate(self.taps):
            for j, weight in enumerate(row):
                to_rows, from_rows = _moved(height, i - kh // 2)
                to, source = _moved(width, j - kw // 2)
                total[:, :, to_rows, to].addcmul_(weight[:, None, None], x[:, :, from_rows, source])
        return total
