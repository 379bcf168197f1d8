"""FTIC where σ is small: what the estimate counts is what the file takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from base_models import create_model, fingerprint
from base_models.blocks import bias_of
from base_models.derived_tables import FRACTIONS, shifted_gaussian_tables
from base_models.ftic import FIRST_LEVEL, LEAST_SIGMA
from tests.tiny_models import tiny_sizes_of
from tto.container import NEUTRAL_QP, SectionType
from tto.latent_coding import LatentCoder
from tto.refine.distortion import SquaredError
from tto.refine.problem import Problem


@torch.no_grad()
def test_small_scales_cost_what_is_estimated_for_them(tiny_model, photograph):
    """y is as μ and σ say it is, two σ from where rounding changes."""
    model = tiny_model("ftic-small").eval().requires_grad_(False)
    model.update_tables(fit_quantiles=True)
    last = model.tca.entropy_parameters_net[-1]
    last.weight.zero_()
    start = torch.tensor([0.4, 0.05, 0.0])  # μ, σ, residual of each channel
    bias_of(last).copy_(start.repeat(model.config.M))
    side, noise = 512, torch.Generator().manual_seed(0)
    y = 0.4 + 0.05 * torch.randn(1, model.config.M, side // 16, side // 16, generator=noise)
    z = torch.zeros(1, model.config.N, side // 64, side // 64)
    rgb = np.asarray(photograph(side, side))
    problem = Problem(model, 1.0, 0.01, side, side, SquaredError(rgb))
    outcome = problem.judge(y, z, NEUTRAL_QP)
    bits_of_y = float(outcome.bits - problem.z_bits(problem.z_symbols(z)).sum())
    sections, _ = LatentCoder(model).encode(y, z, 1.0, NEUTRAL_QP)
    written = 8 * (len(sections[SectionType.Y]) - 4 * model.slices)
    assert written == pytest.approx(bits_of_y, rel=0.1, abs=96)
    assert float(problem.symbol_bits(y.round(), outcome, NEUTRAL_QP).sum()) == pytest.approx(bits_of_y, rel=1e-3)
    assert written < 0.2 * y.numel()  # at σ = 0.11 it would be a third of a bit each


def mean_cost(sigma: float, level: float) -> float:
    """Bits of a rounded Gaussian of this σ, over all fractions of μ, by the tables of a level."""
    tables, mu = shifted_gaussian_tables(np.array([level])), (np.arange(4096) + 0.5) / 4096 - 0.5
    places, values = np.floor((mu + 0.5) * FRACTIONS).astype(int), np.arange(-2, 3)
    ends = (np.arange(-2, 4) - 0.5 - mu[:, None]) / sigma
    masses = np.diff(torch.special.ndtr(torch.from_numpy(ends)).numpy(), axis=1)
    costs = np.stack([tables.costs[place, values - tables.offsets[place]] for place in range(FRACTIONS)])
    return float((masses * costs[places]).sum(1).mean())


def test_levels_begin_where_smaller_ones_would_cost_more():
    """The figures of `FIRST_LEVEL`'s docstring."""
    found = [round(mean_cost(LEAST_SIGMA, level), 3) for level in (LEAST_SIGMA, FIRST_LEVEL, 0.11)]
    assert found == [0.081, 0.043, 0.153]


def test_whole_maps_of_windows_that_wrap_are_told():
    with torch.device("meta"):
        assert create_model("ftic-dictionary").walk_bytes == 2 * 96 * 4 / 4  # 96 channels at half the resolution
        assert create_model("ftic-small-dictionary").walk_bytes == 2 * 64 * 4 / 64
        assert create_model("ftic").walk_bytes > 2 * 96 and create_model("tcm-dictionary").walk_bytes == 0


@pytest.mark.parametrize("sizes", [{"window": 3}, {"window": 6}, {"tca_window": 5}])
def test_windows_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match="expected divisors of 8"):
        create_model("ftic-small", **sizes)


def test_what_no_tensor_tells_is_in_the_fingerprint():
    found = []
    for other in ({}, {"tca_heads": 16, "tca_window": 8}, {"tca_window": 4}, {"tca_heads": 2}):
        torch.manual_seed(0)
        sizes = {**tiny_sizes_of("ftic"), "tca_ratio": 4, "tca_heads": 16, **other}
        found.append(fingerprint(create_model("ftic", **sizes)))
    assert found[0] == found[1] and len(set(found)) == 3
