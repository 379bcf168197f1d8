from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from base_models import create_model
from tto.train.crops import Batch
from tto.train.objective import RateDistortion
from tto.train.recipe import LossSettings
from tto.train.step import StepContext, accumulate_gradients, noise_seed


@pytest.fixture
def context(tiny_sizes):
    torch.manual_seed(0)
    model = create_model("dcae-small", **tiny_sizes).train()

    def make(micro_batch: int, clip_norm: float = 1e9) -> StepContext:
        objective = RateDistortion(LossSettings(), model)
        parameters = [p for n, p in model.named_parameters() if not n.endswith("quantiles")]
        return StepContext(Accelerator(), model, parameters, None, objective, clip_norm, micro_batch, (1, 0))

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


def test_same_step_has_the_same_noise_and_other_steps_other_noise(context, batch):
    first, again, other = (accumulate_gradients(context(2), batch, step)["loss"] for step in (4, 4, 5))
    assert first == again != other


def test_seeds_differ_for_every_part_of_every_step():
    seeds = {noise_seed(s, t, k, p) for s in range(3) for t in range(3) for k in range(50) for p in range(4)}
    assert len(seeds) == 3 * 3 * 50 * 4
    assert max(seeds) < 2**63
