"""The data-dependent transform, and its syntax to bytes and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tto.errors import CorruptFile, WrongLength
from tto.side.transform import DDT, Syntax, apply_transform, best_matrix, decode_syntax, encode_syntax


def test_parameters_are_those_of_table_2():
    ddt = DDT()
    assert sum(p.numel() for p in ddt.encoder.parameters()) == 20_292
    assert sum(p.numel() for p in ddt.decoder.parameters()) == 36_617


def test_new_module_changes_nothing():
    ddt, x = DDT(), torch.rand(2, 3, 33, 50)
    syntax = ddt.encoder(x)
    assert syntax.shape == (2, 9)
    assert torch.equal(apply_transform(x, ddt.decoder(syntax)), x)


def test_syntax_holds_means_of_the_picture_and_its_features():
    encoder, x = DDT().encoder, torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        encoder.head.weight.zero_()
        encoder.head.bias.zero_()
        encoder.head.weight[0, 1] = 1.0  # mean of green
        encoder.head.weight[1, 3 + 5] = 1.0  # mean of map 5 of the first layer
    syntax = encoder(x)[0]
    assert torch.allclose(syntax[0], x[0, 1].mean())
    assert torch.allclose(syntax[1], encoder.conv1(x)[0, 5].relu().mean())


def test_best_matrix_undoes_a_change_of_colours():
    x = torch.rand(2, 3, 20, 30)
    change = torch.eye(3) + 0.05 * torch.randn(2, 3, 3)
    x_hat = torch.einsum("bij,bjhw->bihw", change, x)
    assert torch.allclose(apply_transform(x_hat, best_matrix(x_hat, x)), x, atol=1e-4)


def test_matrix_maps_each_pixel_and_adds_to_it():
    x_hat = torch.rand(2, 3, 4, 5)
    swap = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # blue into red
    changed = apply_transform(x_hat, torch.stack([swap, 0.5 * torch.eye(3)]))
    assert torch.allclose(changed[0, 0], x_hat[0, 0] + x_hat[0, 2])
    assert torch.equal(changed[0, 1:], x_hat[0, 1:])
    assert torch.allclose(changed[1], 1.5 * x_hat[1])


@pytest.mark.parametrize("scale", [0, 0.5, 5, 127])
def test_syntax_round_trips(scale):
    random = np.random.default_rng(1)
    for exponent in range(16):
        levels = tuple(int(level) for level in np.clip(random.normal(0, scale, 9), -127, 127).round())
        syntax = Syntax(levels, exponent)
        assert decode_syntax(encode_syntax(syntax)) == syntax


def test_a_usual_syntax_takes_few_bytes():
    assert encode_syntax(Syntax((1, -2, 3, 0, 0, 1, 4, -3, 2), 4)).hex() == "4197813cdc"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0f\x00\x00", "Rice parameter 15"),
        (b"\x00" + b"\xff" * 40 + b"\x00" * 2, "out of range"),
    ],
)
def test_damaged_syntax_is_refused(data, reason):
    with pytest.raises(CorruptFile, match=f"section syntax: .*{reason}"):
        decode_syntax(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\xff", "ends inside"),
        (b"\x00\x00", "ends inside"),
        (b"\x00\x00\x01", "something follows"),
        (b"\x00\x00\x00\x00", "something follows"),
        (bytes(1000), "1000 bytes"),
    ],
)
def test_syntax_of_another_length_is_refused(data, reason):
    with pytest.raises(WrongLength, match=f"section syntax: .*{reason}"):
        decode_syntax(data)
