from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from base_models import create_model
from tto.train.balance import balanced_weights
from tto.train.crops import Batch
from tto.train.objective import RateDistortion
from tto.train.recipe import LossSettings
from tto.train.step import StepContext, accumulate_gradients, noise_seed


@pytest.fixture
def context(tiny_sizes):
    torch.manual_seed(0)
    model = create_model("dcae-small", **tiny_sizes).train()

    def make(micro_batch: int, clip_norm: float = 1e9, balance: bool = False) -> StepContext:
        objective = RateDistortion(LossSettings(balance=balance), model)
        parameters = [p for n, p in model.named_parameters() if not n.endswith("quantiles")]
        return StepContext(Accelerator(), model, parameters, None, objective, clip_norm, micro_batch, (1, 0), balance)

    return make


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return Batch(torch.rand(2, 3, 64, 64), torch.tensor([0.2, 0.9], dtype=torch.float64))


def test_values_are_means_over_the_batch(context, batch):
    whole = accumulate_gradients(context(1), batch, 0)
    singles = []
    for number in range(2):
        torch.manual_seed(noise_seed(1, 0, 0, number))
        part = batch.part(number, 1)
        objective = context(1).objective
        terms = objective(context(1).network(part.images, objective.quality(part.position)), part.images,
                          objective.quality(part.position))  # fmt: skip
        singles.append(terms.loss.item())
    assert whole["loss"] == pytest.approx(sum(singles) / 2, rel=1e-5)


def test_gradients_are_clipped_and_their_norm_told(context, batch):
    clipped = context(2, clip_norm=0.5)
    norm = accumulate_gradients(clipped, batch, 0)["gradient_norm"]
    assert norm > 0.5
    squares = sum(p.grad.square().sum() for p in clipped.parameters if p.grad is not None)
    assert squares.sqrt().item() == pytest.approx(0.5, rel=1e-4)


@pytest.fixture
def gradients_apart(batch):
    """`gradients_apart(context)`: of the means of rate and of distortion of the first step [2, P], and these [2]."""

    def of(context: StepContext) -> tuple[torch.Tensor, torch.Tensor]:
        parts = {"rate": [], "distortion": []}
        for number, start in enumerate(range(0, 2, context.micro_batch)):
            torch.manual_seed(noise_seed(1, 0, 0, number))
            part = batch.part(start, context.micro_batch)
            quality = context.objective.quality(part.position)
            values = context.objective.values(context.network(part.images, quality), part.images, quality)
            for name, found in parts.items():
                found.append(values[name])
        losses = torch.stack([torch.cat(found).mean() for found in parts.values()])
        options = {"retain_graph": True, "materialize_grads": True}
        found = [torch.autograd.grad(loss, context.parameters, **options) for loss in losses]
        return torch.stack([torch.cat([g.flatten() for g in one]) for one in found]), losses.detach()

    return of


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_balanced_gradient_lowers_rate_and_distortion_at_one_relative_speed(
    context, batch, gradients_apart, micro_batch
):
    balanced = context(micro_batch, balance=True)
    gradients, losses = gradients_apart(balanced)
    values = accumulate_gradients(balanced, batch, 0)
    found = torch.cat([p.grad.flatten() for p in balanced.parameters])
    rate, distortion = (gradients @ found / losses).tolist()
    assert rate == pytest.approx(distortion, rel=1e-3) and rate > 0
    weights = torch.linalg.solve((gradients @ gradients.T).double(), (gradients @ found).double())
    assert float(weights.sum()) == pytest.approx(2.0, rel=1e-3)
    assert values["gradient_norm"] == pytest.approx(float(found.norm()), rel=1e-4)
    assert values["rate"] + values["distortion"] == pytest.approx(values["loss"], rel=1e-5)


def test_balanced_gradients_are_those_of_all_processes(context, batch, monkeypatch):
    """Another process has a batch whose rate pulls the other way, and its losses."""
    alone, seen = context(2, balance=True), []

    def reduce(tensor, reduction):
        seen.append(tensor)
        return tensor.flip(0) if tensor.shape[:1] == (2,) else tensor

    monkeypatch.setattr(alone.accelerator, "reduce", reduce)
    accumulate_gradients(alone, batch, 0)
    found = torch.cat([p.grad.flatten() for p in alone.parameters])
    gradients, losses = (tensor.flip(0) for tensor in seen[:2])
    torch.testing.assert_close(found, balanced_weights(gradients, losses) @ gradients)


def test_same_step_has_the_same_noise_and_other_steps_other_noise(context, batch):
    first, again, other = (accumulate_gradients(context(2), batch, step)["loss"] for step in (4, 4, 5))
    assert first == again != other


def test_seeds_differ_for_every_part_of_every_step():
    seeds = {noise_seed(s, t, k, p) for s in range(3) for t in range(3) for k in range(50) for p in range(4)}
    assert len(seeds) == 3 * 3 * 50 * 4
    assert max(seeds) < 2**63
