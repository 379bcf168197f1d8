from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from base_models import create_model
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
    assert QuantileOptimizer(model, 0.1, active=False).step().item() == 0.0
