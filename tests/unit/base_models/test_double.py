"""Convolutions as matrix products give what PyTorch's own give, in float64 to rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from base_models.double import as_matrix_products

CONVOLUTIONS = {
    "1x1": nn.Conv2d(6, 5, 1),
    "3x3": nn.Conv2d(6, 5, 3, padding=1),
    "3x5 without bias": nn.Conv2d(6, 5, (3, 5), padding=(1, 2), bias=False),
    "5x5 stride 2": nn.Conv2d(6, 5, 5, 2, 2),
    "3x3 stride 3": nn.Conv2d(6, 5, 3, 3, 1),
    "depth-wise 3x3": nn.Conv2d(6, 6, 3, padding=1, groups=6),
    "depth-wise 7x7 without bias": nn.Conv2d(6, 6, 7, padding=3, groups=6, bias=False),
    "transposed 5x5 stride 2": nn.ConvTranspose2d(6, 5, 5, 2, 2, 1),
    "transposed 4x4 stride 2": nn.ConvTranspose2d(6, 5, 4, 2, 1),
    "transposed 3x3": nn.ConvTranspose2d(6, 5, 3, 1, 1),
    "transposed 2x2 stride 2 without bias": nn.ConvTranspose2d(6, 5, 2, 2, bias=False),
}
KEPT = {
    "grouped": nn.Conv2d(6, 4, 3, padding=1, groups=2),
    "dilated": nn.Conv2d(6, 5, 3, padding=2, dilation=2),
    "reflecting": nn.Conv2d(6, 5, 3, padding=1, padding_mode="reflect"),
    "without padding": nn.Conv2d(6, 5, 3),
    "padded by name": nn.Conv2d(6, 5, 3, padding="same"),
    "of unequal strides": nn.Conv2d(6, 5, 3, stride=(1, 2), padding=1),
    "depth-wise and strided": nn.Conv2d(6, 6, 3, 2, 1, groups=6),
    "transposed and smaller": nn.ConvTranspose2d(6, 5, 3, 2, 1),
}


class Masked(nn.Conv2d):
    """A class of its own: its forward may do anything."""


def both(conv: nn.Module, x: torch.Tensor) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """What took the place of `conv`, what it gives, and what `conv` gives."""
    torch.manual_seed(0)
    for parameter in conv.parameters():
        nn.init.normal_(parameter)
    network = nn.Sequential(nn.Sequential(conv)).double()
    with torch.inference_mode():
        expected = network(x)
        return as_matrix_products(network)[0][0], network(x), expected


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("shape", [(2, 6, 8, 12), (1, 6, 7, 5), (1, 6, 1, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_replaced_convolution_gives_the_same_in_float64(name, shape, layout):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    replacement, found, expected = both(CONVOLUTIONS[name], x.contiguous(memory_format=layout))
    assert not isinstance(replacement, nn.modules.conv._ConvNd)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("conv", [*KEPT.values(), Masked(6, 5, 3, padding=1)], ids=[*KEPT, "of a class of its own"])
def test_convolution_that_is_not_understood_stays(conv):
    x = torch.randn(1, 6, 8, 8, dtype=torch.float64)
    replacement, found, expected = both(conv, x)
    assert replacement is conv
    assert torch.equal(found, expected)


def test_entropy_walker_has_no_convolution_of_pytorch_left_and_walks_alike(small_model):
    walker = small_model.entropy_walker()
    assert not [module for module in walker.modules() if isinstance(module, nn.modules.conv._ConvNd)]
    z_hat = torch.randn(1, small_model.config.N, 3, 2, dtype=torch.float64).mul(3).round()
    plain = copy.deepcopy(small_model).double()
    with torch.inference_mode():
        found = walker.walk(z_hat, 3.5, lambda i, mu, sigma: mu.round())
        expected = plain.walk(z_hat, 3.5, lambda i, mu, sigma: mu.round())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
