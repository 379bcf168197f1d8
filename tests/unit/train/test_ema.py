from __future__ import annotations

import torch

from tto.train.ema import AveragedModel


def test_average_follows_with_a_decay_that_grows():
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = AveragedModel(model, decay=0.25)
    model.weight.data.fill_(1.0)
    values = []
    for _ in range(3):
        average.update(model)
        values.append(average.model.weight.item())
    # decays 2/11, 3/12, then 0.25
    torch.testing.assert_close(torch.tensor(values), torch.tensor([9 / 11, 1 - 2 / 44, 1 - 2 / 176]))
    assert not average.model.weight.requires_grad
