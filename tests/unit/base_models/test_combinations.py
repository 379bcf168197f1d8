"""Seven columns of Lu 2025, supplement Table 1: autoencoder and entropy model chosen independently."""

import pytest
import torch

from base_models import create_model, list_models


def shapes(name: str, transforms: bool) -> dict[str, torch.Size]:
    """Of the parameters of the transforms, or of all others."""
    with torch.device("meta"):
        model = create_model(name)
    return {key: p.shape for key, p in model.named_parameters() if key.startswith(("g_a.", "g_s.")) == transforms}


@pytest.mark.parametrize("autoencoder", ["elic", "tcm", "ftic"])
def test_combination_has_the_transforms_of_one_and_the_entropy_model_of_the_other(autoencoder):
    name = f"{autoencoder}-dictionary"
    assert shapes(name, transforms=True) == shapes(autoencoder, transforms=True)
    assert shapes(name, transforms=False) == shapes("dcae", transforms=False)
    assert shapes(autoencoder, transforms=False) != shapes("dcae", transforms=False)


def test_autoencoder_is_any_registered_model():
    with torch.device("meta"):
        model = create_model("elic-dictionary", autoencoder="tcm-small", num_slices=4)
    assert model.config.M == 128 and model.slice_channels == (32,) * 4
    assert set(list_models()) >= {"elic", "elic-dictionary", "elic-both", "tcm", "tcm-dictionary", "ftic"}
    with pytest.raises(KeyError, match="unknown model 'elicc'; known: .*elic"):
        create_model("elic-dictionary", autoencoder="elicc")
    with pytest.raises(ValueError, match="autoencoder is 'elic-dictionary', which has no transforms to take"):
        create_model("elic-dictionary", autoencoder="elic-dictionary")
    with pytest.raises(ValueError, match="M is 128, expected a multiple of 5"):
        create_model("elic-dictionary", autoencoder="elic-small")


@torch.inference_mode()
def test_elic_reads_the_dictionary_beside_its_own_contexts():
    """Every group's first pass depends on the dictionary, and its second on the first besides."""
    torch.manual_seed(0)
    model = create_model("elic-small-both").eval()
    z_hat = torch.randn(1, 48, 1, 1)

    def means(first_anchor: float = 0.0) -> list[torch.Tensor]:
        seen = []

        def code(i, mu, sigma):
            seen.append(mu)
            return mu + first_anchor if i == 0 else mu

        model.walk(z_hat, 1.0, code)
        return seen

    before, moved = means(), means(first_anchor=1.0)
    assert torch.equal(before[0], moved[0])
    assert not any(torch.equal(a, b) for a, b in zip(before[1:], moved[1:], strict=True))
    model.dt.data = torch.randn_like(model.dt)
    assert not any(torch.equal(a, b) for a, b in zip(before, means(), strict=True))
