"""CompressAI's families against its own classes with the same random weights: numbers, and bytes of files."""

from __future__ import annotations

from types import SimpleNamespace

import compressai.models
import numpy as np
import pytest
import torch

from base_models import create_model
from base_models.checkpoints import recognize
from base_models.compressai_zoo import FAMILIES
from tto.codec import Codec
from tto.container import SectionType, read

WIDTHS = {"N": 24, "M": 24}
TOLERANCE = 1e-5
BYTES_TOLERANCE = 0.01


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.registered_name)
def case(request, photograph) -> SimpleNamespace:
    """Ours and theirs, with latents of natural scales, and a picture x."""
    family = request.param
    pixels = np.asarray(photograph(640, 512))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = create_model(family.registered_name, **WIDTHS).eval().requires_grad_(False)
    y = ours.analysis(x)
    last = [layer for layer in ours.g_a.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    last.weight *= 3 / y.std()
    last.bias *= 3 / y.std()
    head = getattr(ours, "entropy_parameters", getattr(ours, "h_s", None))
    if head is not None:
        [layer for layer in head.modules() if isinstance(layer, torch.nn.Conv2d)][-1].bias[: ours.y_channels] += 2.5
    ours.update_tables(fit_quantiles=True)
    theirs = getattr(compressai.models, family.network_name)(*WIDTHS.values() if family.takes_m else (WIDTHS["N"],))
    theirs.load_state_dict(ours.state_dict())
    return SimpleNamespace(ours=ours, theirs=theirs.eval(), x=x, pixels=pixels)


@torch.no_grad()
def test_forward_gives_the_same_numbers(case):
    found, expected = case.ours(case.x), case.theirs(case.x)
    torch.testing.assert_close(found["x_hat"], expected["x_hat"], rtol=TOLERANCE, atol=TOLERANCE)
    assert found["likelihoods"].keys() == expected["likelihoods"].keys()
    for name, values in expected["likelihoods"].items():
        if name == "y" and case.ours.grid == "integer":
            continue  # theirs are of y rounded at μ, but not their x_hat
        torch.testing.assert_close(found["likelihoods"][name], values, rtol=TOLERANCE, atol=TOLERANCE)


@torch.no_grad()
def test_likelihoods_on_the_integer_grid_are_those_of_the_file(photograph):
    """With σ far below a step, where cells around μ cost half as much again as the file does."""
    pixels = np.asarray(photograph(256, 192))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("mbt2018", **WIDTHS).eval().requires_grad_(False)
    last = [layer for layer in model.g_a.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    scale = 0.3 / model.analysis(x).std()
    last.weight *= scale
    last.bias *= scale
    head = [layer for layer in model.entropy_parameters.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
    head.weight *= 0.01
    head.bias[: model.y_channels] = 0.3
    head.bias[model.y_channels :] = torch.linspace(-0.5, 0.5, model.y_channels)
    model.update_tables(fit_quantiles=True)
    bits = -model(x)["likelihoods"]["y"].log2().sum()
    coded = Codec(model, "cpu").compress(pixels, 1)
    y = read(coded.data).sections[SectionType.Y]
    assert 8 * len(y) == pytest.approx(float(bits), rel=0.05)


@torch.no_grad()
def test_files_are_as_large_as_those_of_its_own_compress(case):
    strings = case.theirs.compress(case.x)["strings"]
    expected = sum(len(string[0]) for string in strings)
    result = Codec(case.ours, "cpu").compress(case.pixels, 1)
    assert result.bytes == pytest.approx(expected, rel=BYTES_TOLERANCE)


def test_its_state_dict_is_recognized(case):
    assert recognize(case.theirs.state_dict()) == (case.ours.registered_name, WIDTHS)
