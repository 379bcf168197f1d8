"""Where training of a new network starts."""

import numpy as np
import pytest
import torch

from base_models import create_model


@pytest.mark.parametrize(
    ("name", "least_psnr"),
    [
        ("dcae-small", 32), ("tcm-small", 26), ("elic-small", 28), ("grm-small", 28),
        ("ftic-small", 28), ("ftic-small-dictionary", 28), ("tcm-small-dictionary", 26),
        ("elic-small-dictionary", 28), ("elic-small-both", 28),
        ("bmshj2018-hyperprior", 30), ("mbt2018-mean", 30), ("mbt2018", 30),
    ],
)  # fmt: skip
def test_new_network_fitted_to_images_is_a_block_transform(photograph, name, least_psnr):
    """Without any training it reconstructs well, its channels fall in variance, and its hyper-latent lives."""
    pixels = np.stack([np.asarray(photograph(128, 128, seed)) for seed in range(6)])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    model = create_model(name)
    model.init_from_images(x)
    middle = (1 + model.qualities) / 2
    with torch.inference_mode():
        y = model.analysis(x, middle)
        mse = (model.synthesis(y, middle) - x).square().mean().item()
        z = model.hyper_analysis(y, middle)
        bits = -model(x, middle)["likelihoods"]["z"].log2().sum().item() / x[:, 0].numel()
        mu, sigma = model.walk(z, middle, lambda i, mu, sigma: mu)[1:3]
    assert 10 * np.log10(1 / mse) > least_psnr
    energy = y.square().mean((0, 2, 3))
    assert energy[0] > energy[10] > energy[60] > 1.0001 * energy[min(120, len(energy) - 1)]
    assert z.std() > 1
    assert bits > 0.01
    assert (sigma.mean((0, 2, 3)) - y.std((0, 2, 3)).clamp(min=0.2)).abs().mean() < 0.5 * y.std()
    assert (mu - y.mean((0, 2, 3), keepdim=True)).abs().mean() < 0.5 * y.std()
