"""DCAE with tokens of the picture in place of the dictionary (Lu 2025, Table 5)."""

import numpy as np
import pytest
import torch

from base_models import create_model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("dcae-small-global-token", dict_entries=7).eval()


@torch.inference_mode()
@pytest.mark.parametrize("sides", [(64, 64), (128, 192)])
def test_tokens_travel_as_further_rows_of_z(model, sides):
    y = torch.randn(2, 160, sides[0] // 16, sides[1] // 16)
    z = model.hyper_analysis(y)
    assert z.shape == (2, *model.latent_shapes(*sides).z)
    columns, rows = sides[1] // 64, sides[0] // 64
    assert torch.equal(z[:, :, :rows], model.h_a(y))
    values = z[:, :, rows:].flatten(2)
    assert torch.equal(values[..., :7], model.tokens(y))
    assert values.shape[-1] == -(-7 // columns) * columns
    assert torch.equal(values[..., 7:], model.z_medians()[..., 0].expand(2, -1, values.shape[-1] - 7))


@torch.inference_mode()
def test_each_picture_asks_its_own_tokens(model):
    z = model.hyper_analysis(torch.randn(2, 160, 8, 8))
    both = model.hyper_features(z, 1.0).dictionary
    alone = model.hyper_features(z[1:], 1.0).dictionary
    assert both.shape == (2, 7, 64)
    assert torch.allclose(both[1:], alone, atol=1e-5) and not torch.allclose(both[:1], alone, atol=1e-2)
    mu = model.walk(z, 1.0, lambda i, mu, sigma: mu).mu
    changed = z.clone()
    changed[:, :, 2:] += 1.0
    assert not torch.allclose(model.walk(changed, 1.0, lambda i, mu, sigma: mu).mu, mu, atol=1e-3)


def test_z_and_tokens_each_start_with_the_deviation_of_z(photograph):
    torch.manual_seed(0)
    model = create_model("dcae-small-global-token")
    x = torch.stack([torch.from_numpy(np.array(photograph(128, 128, seed))) for seed in range(4)])
    x = x.permute(0, 3, 1, 2).float() / 255
    model.init_from_images(x)
    with torch.no_grad():
        y = model.analysis(x, model.middle_quality)
        for values in (model.h_a(y).flatten(2), model.tokens(y)):
            assert values.mean((0, 2)).abs().max() < 1e-2
            assert values.std() == pytest.approx(3.0, rel=0.1)
