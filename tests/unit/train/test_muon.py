from __future__ import annotations

import pytest
import timm.optim.muon as timm_muon
import torch

from tto.train.muon import Muon

SHAPES = {"a": (8, 36), "kernel": (8, 4, 3, 3), "tall": (24, 6), "bias": (8,)}
STEPS = 3


def weights(alone: str | None = None) -> dict[str, torch.nn.Parameter]:
    """The kernel, which counts as the matrix "a" does, lies in memory as training in channels-last has it."""
    torch.manual_seed(0)
    values = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    values["kernel"] = values["kernel"].contiguous(memory_format=torch.channels_last)
    return {name: torch.nn.Parameter(value) for name, value in values.items() if alone in (None, name)}


def after_steps(optimizer_class, parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "lr": 0.02, "use_muon": True},
        {"params": [p for p in parameters.values() if p.ndim == 1], "lr": 0.01, "use_fallback": True},
    ]
    optimizer = optimizer_class([group for group in groups if group["params"]], betas=(0.9, 0.99))
    torch.manual_seed(1)
    gradients = [{name: torch.randn(shape) for name, shape in SHAPES.items()} for _ in range(STEPS)]
    for of_step in gradients:
        for name, parameter in parameters.items():
            parameter.grad = of_step[name].clone()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


@pytest.mark.parametrize(("in_bfloat16", "tolerance"), [(True, 1e-5), (False, 2e-3)])
def test_steps_are_those_of_timm(monkeypatch, in_bfloat16, tolerance):
    monkeypatch.setattr("tto.train.muon.descends_in_bfloat16", lambda device: in_bfloat16)
    ours, theirs = after_steps(Muon, weights()), after_steps(timm_muon.Muon, weights())
    start = weights()
    for name, value in ours.items():
        assert (value - theirs[name]).abs().max() < tolerance
        assert (value - start[name]).abs().max() > 0.01
    assert torch.equal(ours["bias"], theirs["bias"])


def test_precision_is_that_which_the_device_multiplies(monkeypatch):
    used = []
    iterate = timm_muon.zeropower_via_newtonschulz

    def noted(matrices, *args, dtype):
        used.append((tuple(matrices.shape), dtype))
        return iterate(matrices, *args, dtype=dtype)

    monkeypatch.setattr(timm_muon, "zeropower_via_newtonschulz", noted)
    monkeypatch.setattr("tto.train.muon.descends_in_bfloat16", lambda device: False)
    after_steps(Muon, weights())
    assert used == [((2, 8, 36), torch.float32), ((1, 24, 6), torch.float32)] * STEPS


@pytest.mark.parametrize("name", ["a", "kernel", "tall"])
def test_a_matrix_moves_as_it_would_alone(name):
    assert torch.allclose(after_steps(Muon, weights(name))[name], after_steps(Muon, weights())[name], atol=1e-6)


def test_a_matrix_without_a_gradient_stays():
    parameter = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([{"params": [parameter], "lr": 1.0, "use_muon": True}])
    optimizer.step()
    assert torch.equal(parameter, torch.ones(4, 4)) and not optimizer.state
