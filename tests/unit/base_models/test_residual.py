"""Residual blocks against CompressAI's, whose names they share."""

import pytest
import torch
from compressai import layers

from base_models.residual import GatedAttention, ResidualBlock, ResidualDown, ResidualUp

PAIRS = {
    "down": (ResidualDown(3, 8), layers.ResidualBlockWithStride(3, 8)),
    "up": (ResidualUp(3, 8), layers.ResidualBlockUpsample(3, 8)),
    "block": (ResidualBlock(3), layers.ResidualBlock(3, 3)),
    "attention": (GatedAttention(4), layers.AttentionBlock(4)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_compressai(name, layout):
    ours, theirs = PAIRS[name]
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # also below the bounds of GDN
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4 if name == "attention" else 3, 6, 10)
    output, expected = ours.to(memory_format=layout)(x.to(memory_format=layout)), theirs(x)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    ours.zero_grad()
    theirs.zero_grad()
    output.square().sum().backward()
    expected.square().sum().backward()
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for key, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[key], rtol=1e-3, atol=1e-3, msg=key)


def test_no_strided_pointwise_convolution():
    """Its gradients corrupt memory with channels last: seen as aborts of training runs."""
    assert not [
        m for m in ResidualDown(3, 8).modules() if getattr(m, "kernel_size", 0) == (1, 1) and m.stride != (1, 1)
    ]
