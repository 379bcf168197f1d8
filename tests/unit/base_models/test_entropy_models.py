"""Entropy models against those of CompressAI, whose names and arithmetic they share."""

from __future__ import annotations

import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.entropy_models import GaussianConditional as TheirGaussian
from compressai.models.base import get_scale_table

from base_models.entropy_models import FactorizedPrior, GaussianConditional, IntegerGaussian

CHANNELS = 5


@pytest.fixture
def priors() -> tuple[FactorizedPrior, EntropyBottleneck]:
    """The same density twice, not symmetric."""
    torch.manual_seed(0)
    theirs = EntropyBottleneck(CHANNELS)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    theirs._update_quantiles()
    theirs.update(force=True)
    ours = FactorizedPrior(CHANNELS)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.fixture
def gaussians() -> tuple[GaussianConditional, TheirGaussian]:
    theirs = TheirGaussian(None)
    theirs.update_scale_table(get_scale_table())
    ours = GaussianConditional()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("training", [False, True])
def test_factorized_likelihoods_agree(priors, training):
    z = 4 * torch.randn(2, CHANNELS, 3, 4)
    found = []
    for prior, likelihood in zip(priors, (priors[0].likelihood, lambda z: priors[1](z)[1]), strict=True):
        prior.train(training)
        torch.manual_seed(1)  # of the noise
        found.append(likelihood(z))
    torch.testing.assert_close(*found)
    assert torch.equal(priors[0].medians(), priors[1]._get_medians()[None, :, :, 0, None])


def test_quantiles_and_tables_agree(priors):
    ours, theirs = priors
    loss, expected = ours.quantile_loss(), theirs.loss()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(*(torch.autograd.grad(value, p.quantiles)[0] for value, p in ((loss, ours), (expected, theirs))))
    with torch.no_grad():
        for prior in priors:
            prior.quantiles += 1.0
    theirs.update(force=True, update_quantiles=True)
    ours.update_tables(fit_quantiles=True)
    torch.testing.assert_close(ours.quantiles, theirs.quantiles, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        ours.quantiles.copy_(theirs.quantiles)
    ours.update_tables()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("training", [False, True])
def test_gaussian_likelihoods_and_their_gradients_agree(gaussians, training):
    y, mu, raw = (torch.randn(2, CHANNELS, 3, 4) for _ in range(3))
    found = []
    for gaussian, likelihood in zip(gaussians, (gaussians[0].likelihood, lambda *a: gaussians[1](*a)[1]), strict=True):
        gaussian.train(training)
        torch.manual_seed(1)
        leaves = [leaf.clone().requires_grad_() for leaf in (3 * y, raw, mu)]  # also scales below the smallest
        value = likelihood(*leaves)
        found.append((value, *torch.autograd.grad(value.log().sum(), leaves[1:])))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gaussian_tables_agree(gaussians):
    ours, theirs = gaussians
    built = GaussianConditional()
    built.update_tables()
    for name, value in theirs.state_dict().items():
        assert torch.equal(built.state_dict()[name], value) and torch.equal(ours.state_dict()[name], value), name


def test_levels_of_scales_may_begin_below_the_usual_ones():
    """As far from each other, and likelihoods go further down where so wanted."""
    usual, finer = GaussianConditional(), IntegerGaussian(0.01, first_level=0.02).eval()
    assert (usual.smallest_scale, finer.smallest_scale) == (pytest.approx(0.11), pytest.approx(0.01))
    for prior in (usual, finer):
        prior.update_tables()
    assert (usual.smallest_scale, finer.smallest_scale) == (pytest.approx(0.11), pytest.approx(0.02))
    assert len(usual.tables()) == 64 and len(finer.tables()) == 78
    gaps = (usual.scale_table.log().diff().mean(), finer.scale_table.log().diff().mean())
    assert float(gaps[1]) == pytest.approx(float(gaps[0]), rel=0.01)
    zero, mu = torch.zeros(3), torch.full((3,), 0.45)
    likelihood = finer.likelihood(zero, torch.tensor([0.001, 0.01, 0.02]), mu)
    assert likelihood[0] == likelihood[1] > likelihood[2] > 0.99


def test_tables_are_asked_for_in_vain_before_they_are_built():
    with pytest.raises(ValueError, match="update_tables"):
        GaussianConditional().tables()


def test_gaussian_on_the_integer_grid_rounds_values_where_they_are():
    prior = IntegerGaussian().eval()
    mu, sigma = torch.full((41,), 0.3), torch.full((41,), 1.5)
    integers = torch.arange(-20.0, 21.0)
    likelihood = prior.likelihood(integers, sigma, mu)
    assert float(likelihood.sum()) == pytest.approx(1, abs=1e-6)
    assert likelihood[20] > likelihood[21] > likelihood[19] > likelihood[22]  # 0, 1, −1, 2
    assert torch.equal(prior.likelihood(integers + 0.45, sigma, mu), likelihood)
