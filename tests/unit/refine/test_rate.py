"""Estimated bits are those the coder spends."""

from __future__ import annotations

import pytest
import torch

from tto.codec import Codec
from tto.container import SectionType, read
from tto.refine.rate import FactorizedBits, expected_bits, gaussian_bits, mixed_bits


def test_gaussian_bits_are_minus_log2_of_the_cells_mass():
    sigma, u = torch.tensor(1.3, dtype=torch.float64), torch.tensor([0.0, 1.0, -2.0, 0.4], dtype=torch.float64)
    normal = torch.distributions.Normal(torch.zeros_like(sigma), sigma)
    mass = normal.cdf(u + 0.5) - normal.cdf(u - 0.5)
    assert torch.allclose(gaussian_bits(u, sigma), -torch.log2(mass), atol=1e-3)


def test_no_symbol_costs_more_than_sixteen_bits():
    assert float(gaussian_bits(torch.tensor(1e6), torch.tensor(0.2))) == pytest.approx(16)


def test_scales_below_the_smallest_coded_one_count_as_it():
    u = torch.tensor([0.0, 1.0])
    assert torch.equal(gaussian_bits(u, torch.tensor(-3.0)), gaussian_bits(u, torch.tensor(0.11)))


@pytest.mark.parametrize("rate", [gaussian_bits, expected_bits, mixed_bits])
def test_a_model_may_have_another_smallest_scale(rate):
    u, mean = torch.tensor([0.0, 1.3]), torch.tensor(0.4)
    assert torch.equal(rate(u, torch.tensor(0.005), mean, 0.02), rate(u, torch.tensor(0.02), mean, 0.02))
    assert (rate(u, torch.tensor(0.02), mean, 0.02)[0] < rate(u, torch.tensor(0.02), mean)[0]).all()


def test_expected_bits_are_exact_at_integers_and_linear_between():
    sigma = torch.tensor(0.7)
    low, high = gaussian_bits(torch.tensor([1.0, 2.0]), sigma)
    expected = expected_bits(torch.tensor([1.0, 1.25, 2.0]), sigma)
    assert torch.allclose(expected, torch.stack([low, 0.75 * low + 0.25 * high, high]))


def test_cost_of_z_is_its_tables(tiny_codec):
    bottleneck = tiny_codec.model.entropy_bottleneck
    cost = FactorizedBits(bottleneck.tables(), torch.device("cpu"))
    channel, symbol = 2, 1
    cdf = bottleneck._quantized_cdf[channel]
    index = symbol - int(bottleneck._offset[channel])
    u = torch.zeros(1, 8, 1, 1)
    u[0, channel] = symbol
    frequency = (cdf[index + 1] - cdf[index]) / 65536
    assert float(cost(u)[0, channel]) == pytest.approx(-float(torch.log2(frequency)), rel=1e-4)


def test_estimated_rate_is_that_of_the_sections(small_codec: Codec, photograph):
    from tto.image import load_picture
    from tto.refine.distortion import SquaredError
    from tto.refine.problem import Problem

    picture = load_picture(photograph(192, 128))
    y, z = (latent.clone() for latent in small_codec.analyse(picture.rgb, 5.0))
    problem = Problem(small_codec.model, 5.0, 0.01, 128, 192, SquaredError(picture.rgb))
    candidate = problem.candidate(y, z, 140)
    sections = read(small_codec.pack(picture, y, z, 5.0, qp=140).data).sections
    checksums = 4 * small_codec.model.slices
    bits = 8 * (len(sections[SectionType.Z]) + len(sections[SectionType.Y]) - checksums)
    assert candidate.bpp * problem.pixels == pytest.approx(bits, rel=0.03, abs=64)
