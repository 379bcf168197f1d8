"""What an evaluation sees of a picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tto.refine.problem import Clamped


def test_refinement_of_a_gray_picture_sees_gray_pixels(problem, latents):
    gray = replace(problem, grayscale=True)
    outcome = gray.judge(*latents, 128)
    assert torch.equal(outcome.x_hat[:, 0], outcome.x_hat[:, 2])


def test_padding_costs_no_distortion(problem, latents):
    outcome = problem.judge(*latents, 128)
    inside = problem.distortion.original.astype(float)
    levels = (255 * outcome.x_hat[0].permute(1, 2, 0).double().numpy()).round()
    assert levels.shape == inside.shape
    assert problem.candidate_of(outcome, 128).distortion == pytest.approx(((levels - inside) ** 2).mean(), rel=1e-4)
    assert outcome.distortion.isnan()  # nobody asked for that of pixels between levels


def test_clamping_and_its_gradient_are_those_of_a_tensor():
    values = torch.tensor([-0.1, 1e-9, 0.5, 0.9999999, 1.1])
    x_hat, plain = (values.clone().requires_grad_(True) for _ in range(2))
    found, expected = Clamped.apply(x_hat), plain.clamp(0, 1)
    for clamped in (found, expected):
        clamped.backward(torch.arange(2.0, 7.0))
    assert torch.equal(found, expected) and torch.equal(x_hat.grad, plain.grad)
