"""What an evaluation sees of a picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch


def test_refinement_of_a_gray_picture_sees_gray_pixels(problem, latents):
    gray = replace(problem, grayscale=True)
    outcome = gray.judge(*latents, 128)
    assert torch.equal(outcome.x_hat[:, 0], outcome.x_hat[:, 2])


def test_padding_costs_no_distortion(problem, latents):
    outcome = problem.judge(*latents, 128)
    inside = problem.distortion.original.astype(float)
    levels = 255 * outcome.x_hat[0].permute(1, 2, 0).double().numpy()
    assert levels.shape == inside.shape
    assert float(outcome.distortion) == pytest.approx(((levels - inside) ** 2).mean(), rel=1e-4)
