from __future__ import annotations

from fnmatch import fnmatchcase
from types import SimpleNamespace

import pytest
import torch

from base_models import create_model
from base_models.entropy_models import FactorizedPrior
from tests.tiny_models import tiny_sizes_of
from tto.side.compensation import MSC
from tto.train.errors import MissingModule
from tto.train.optimizers import (
    QuantileOptimizer,
    create_optimizer,
    freeze_all_but,
    set_learning_rates,
    trainable_names,
)
from tto.train.recipe import OptimizerSettings


@pytest.fixture
def model(tiny_sizes):
    torch.manual_seed(0)
    return create_model("dcae-small", **tiny_sizes)


def stage(*patterns: str) -> SimpleNamespace:
    return SimpleNamespace(name="s", trainable=patterns)


def test_patterns_choose_parameters_and_never_quantiles(model):
    names = trainable_names(model, stage("g_s.*", "entropy_bottleneck.*"))
    assert any(name.startswith("entropy_bottleneck.matrices") for name in names)
    assert {name.split(".")[0] for name in names} == {"g_s", "entropy_bottleneck"}
    assert not any(name.endswith("quantiles") for name in names)
    freeze_all_but(model, names)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(names)


def test_missing_module_is_one_clear_line(model):
    with pytest.raises(MissingModule, match="stage 's' trains 'msc.*', which model 'dcae-small' does not have"):
        trainable_names(model, stage("g_a.*", "msc.*"))


def test_muon_takes_matrices_and_adam_the_rest(model):
    names = trainable_names(model, stage("*"))
    optimizer = create_optimizer(
        model, names, OptimizerSettings(name="muon", muon_learning_rate=0.5, learning_rate=0.1)
    )
    of = {id(p): n for n, p in model.named_parameters()}
    muon, adam = ({of[id(p)] for p in group["params"]} for group in optimizer.param_groups)
    assert {"g_a.2.conv.weight", "g_s.5.conv.weight", "dt_cross_attention.0.k.weight"} <= muon
    assert {"dt", "gain_y.log_gain", "entropy_bottleneck.matrices.0", "g_a.0.conv.bias"} <= adam
    assert any("relative_position_params" in name for name in adam)
    assert muon | adam == set(names) and not muon & adam
    set_learning_rates(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.05]


NOT_MATRICES = {
    "elic-both": ["dt", "entropy_bottleneck.matrices.1"],
    "tcm-small": ["*.relative_position_params", "*.gdn.gamma", "*.igdn.gamma"],
    "ftic-small": ["*.complex_weight", "*.relative_position_bias_table", "*.gdn.gamma"],
    "grm-small": ["g_a.1.gamma"],
    "mbt2018-mean": ["g_a.1.gamma", "g_s.1.gamma"],
    "dcae-global-token": ["tokens.queries", "entropy_bottleneck.matrices.1"],
}
"""What has the shape of a matrix and is none."""


@pytest.mark.parametrize("name", NOT_MATRICES)
def test_what_is_no_linear_map_goes_to_adam_in_every_network(name):
    model = create_model(name, **tiny_sizes_of(name))
    optimizer = create_optimizer(model, trainable_names(model, stage("*")), OptimizerSettings(name="muon"))
    by_muon = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    names = {n: id(p) in by_muon for n, p in model.named_parameters()}
    for pattern in NOT_MATRICES[name]:
        found = [goes_to_muon for n, goes_to_muon in names.items() if fnmatchcase(n, pattern)]
        assert found and not any(found), pattern
    assert names[next(n for n in names if n.startswith("h_a.0."))]


def test_codes_of_side_modules_go_to_adam():
    side = torch.nn.ModuleDict({"msc": MSC(16, 8)})
    optimizer = create_optimizer(side, ["msc.codebook", "msc.encoder.0.weight"], OptimizerSettings(name="muon"))
    assert [id(group["params"][0]) for group in optimizer.param_groups] == [
        id(side["msc"].encoder[0].weight),
        id(side["msc"].codebook),
    ]


def test_muon_moves_a_matrix_by_its_learning_rate_in_every_direction():
    layer = torch.nn.Linear(8, 8, bias=False)
    before = layer.weight.detach().clone()
    optimizer = create_optimizer(layer, ["weight"], OptimizerSettings(name="muon", muon_learning_rate=0.01))
    layer.weight.grad = torch.randn(8, 8)
    optimizer.step()
    singular = torch.linalg.svdvals(before - layer.weight.detach()) / (0.01 * 0.2 * 8**0.5)
    assert singular.min() > 0.6 and singular.max() < 1.4


def test_quantiles_follow_the_distribution_without_touching_anything_else(model):
    freeze_all_but(model, trainable_names(model, stage("*")))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = QuantileOptimizer(model, 1.0)
    losses = [optimizer.step().item() for _ in range(300)]
    assert losses[-1] < 0.1 * losses[0]
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert changed == ["entropy_bottleneck.quantiles"]
    assert all(p.grad is None for p in model.parameters())


def test_quantiles_rest_while_the_bottleneck_is_frozen(model):
    freeze_all_but(model, trainable_names(model, stage("g_s.*")))
    assert QuantileOptimizer(model, 0.1).step().item() == 0.0


def test_a_prior_of_another_name_has_its_quantiles_trained(model):
    """And only there, not with the main loss."""
    model.another_prior = FactorizedPrior(4)
    names = trainable_names(model, stage("another_prior.*"))
    assert "another_prior.matrices.0" in names and "another_prior.quantiles" not in names
    freeze_all_but(model, names)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    QuantileOptimizer(model, 1.0).step()
    changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert changed == ["another_prior.quantiles"]
