"""Masked compensation."""

from __future__ import annotations

import pytest
import torch

from tto.side.compensation import MSC, integer_frequencies, scaled_width


def test_parameters_are_those_of_table_1():
    msc = MSC()
    assert sum(p.numel() for p in msc.encoder.parameters()) == 427_328
    assert sum(p.numel() for p in msc.decoder.parameters()) == 425_984


@pytest.mark.parametrize(("channels", "width"), [(320, 256), (160, 128), (192, 152), (16, 16), (4, 8)])
def test_width_follows_the_channels(channels, width):
    assert scaled_width(channels) == width


def test_decoder_maps_zero_to_exactly_zero():
    assert torch.equal(MSC(16).decoder(torch.zeros(1, 16, 3, 2)), torch.zeros(1, 16, 3, 2))


def test_compensations_are_the_decoded_codebook():
    msc = MSC(channels=16, codes=5)
    field = msc.codebook[[3, 0]].T.reshape(1, 16, 1, 2)  # a latent of two positions
    assert msc.compensations().shape == (5, 16)
    assert torch.allclose(msc.decoder(field)[0, :, 0, :].T, msc.compensations()[[3, 0]], atol=1e-6)


@pytest.mark.parametrize("counts", [[1, 1, 2], [0, 0, 1e9], [0.0, 0.0, 0.0], [1 / 3] * 7, [5] * 256])
def test_frequencies_are_whole_and_leave_no_code_out(counts):
    frequencies = integer_frequencies(torch.tensor(counts))
    assert int(frequencies.sum()) == 1 << 16 and int(frequencies.min()) >= 1
    assert frequencies.dtype == torch.int64


def test_frequencies_follow_the_counts():
    assert integer_frequencies(torch.tensor([1.0, 1.0, 2.0])).tolist() == [16384, 16384, 32768]
