"""Residual blocks against CompressAI's, whose names they share."""

import pytest
import torch
from compressai import layers

from base_models.residual import GDN, GSDN, GatedAttention, ResidualBlock, ResidualDown, ResidualUp

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


@pytest.fixture
def subtractive():
    """GSDN of two channels, and its inverse: ν = (1, −1), τ = ((0, 2), (0.5, 0)), β = (1, 4), γ = ((0, 1), (2, 0))."""
    blocks = GSDN(2), GSDN(2, inverse=True)
    with torch.no_grad():
        for block in blocks:
            block.nu.copy_(torch.tensor([1.0, -1.0]))
            block.tau.copy_(torch.tensor([[0.0, 2.0], [0.5, 0.0]]))
            block.beta.copy_(block.beta_reparam.stored(torch.tensor([1.0, 4.0])))
            block.gamma.copy_(block.gamma_reparam.stored(torch.tensor([[0.0, 1.0], [2.0, 0.0]])))
    return blocks


def test_gsdn_subtracts_then_divides_and_its_inverse_multiplies_then_adds(subtractive):
    """By hand from Qian 2021, Eq. 5 and 6 at x = (4, 3): shifts are 1 + 2·3 and −1 + 2, energies 1 + 9 and 4 + 32."""
    x = torch.tensor([4.0, 3.0]).view(1, 2, 1, 1)
    forward, inverse = (block(x).flatten().tolist() for block in subtractive)
    assert forward == pytest.approx([(4 - 7) / 10**0.5, (3 - 1) / 6], rel=1e-4)
    assert inverse == pytest.approx([4 * 10**0.5 + 7, 3 * 6 + 1], rel=1e-4)


def test_gsdn_has_as_many_parameters_again_as_gdn_and_starts_as_it(subtractive):
    block, plain = GSDN(6), GDN(6)
    assert (
        sum(p.numel() for p in block.parameters()) == 2 * (6 + 6**2) == 2 * sum(p.numel() for p in plain.parameters())
    )
    x = torch.randn(1, 6, 4, 4)
    assert torch.equal(block(x), plain(x))
    block = subtractive[0]
    block.set_identity()
    torch.testing.assert_close(block(x[:, :2]), x[:, :2])


def test_no_strided_pointwise_convolution():
    """Its gradients corrupt memory with channels last: seen as aborts of training runs."""
    assert not [
        m for m in ResidualDown(3, 8).modules() if getattr(m, "kernel_size", 0) == (1, 1) and m.stride != (1, 1)
    ]
