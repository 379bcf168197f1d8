"""What ELIC has of its own."""

from __future__ import annotations

import torch

from base_models import create_model


def test_the_first_group_may_be_wider_than_what_the_hyperprior_says():
    model = create_model("elic", N=8, M=32, groups=(16, 16), context_widths=(8, 8)).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64))["likelihoods"]["y"].shape == (1, 32, 4, 4)
