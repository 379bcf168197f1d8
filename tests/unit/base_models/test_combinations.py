"""Seven columns of Lu 2025, supplement Table 1: autoencoder and entropy model chosen independently."""

import json
from dataclasses import asdict

import pytest
import torch

from base_models import create_model, list_models
from base_models.tiles import Chain
from tests.tiny_models import tiny_sizes_of


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


def test_autoencoder_is_any_that_has_transforms_to_take():
    with torch.device("meta"):
        model = create_model("elic-dictionary", autoencoder="tcm-small", num_slices=4)
        whole, own = create_model("elic-dictionary", autoencoder="dcae"), create_model("dcae")
    assert model.config.M == 128 and model.slice_channels == (32,) * 4
    assert {k: v.shape for k, v in whole.state_dict().items()} == {k: v.shape for k, v in own.state_dict().items()}
    assert set(list_models()) >= {"elic", "elic-dictionary", "elic-both", "tcm", "tcm-dictionary", "ftic"}
    with pytest.raises(KeyError, match="unknown model 'elicc'; known: .*elic"):
        create_model("elic-dictionary", autoencoder="elicc")
    with pytest.raises(ValueError, match="autoencoder is 'elic-dictionary', which has no transforms to take"):
        create_model("elic-dictionary", autoencoder="elic-dictionary")
    with pytest.raises(ValueError, match="M is 128, expected a multiple of 5"):
        create_model("elic-dictionary", autoencoder="elic-small")


OLD_FIELDS = {
    "elic-dictionary": {
        "autoencoder": "elic-small", "N": 16, "hyper_head_dim": 8, "hyper_window": 4, "num_slices": 4,
        "dict_entries": 8, "dict_heads": 2, "dict_head_dim": 8, "msfa_scales": 1, "context_widths": [8, 8],
        "lambdas": [0.01, 0.02],
    },
    "dcae": {
        "stage_channels": [8, 8, 16], "swin_layers": [0, 0, 1], "head_dims": [4, 8, 8], "window": 8, "M": 16, "N": 8,
        "hyper_head_dim": 8, "hyper_window": 4, "num_slices": 2, "dict_entries": 8, "dict_heads": 2,
        "dict_head_dim": 8, "msfa_scales": 3, "context_widths": [8, 8], "lambdas": [0.013],
    },
}  # fmt: skip
"""As checkpoints have them whose configurations shared nothing."""


@pytest.mark.parametrize("name", OLD_FIELDS)
def test_configurations_of_earlier_checkpoints_are_those_of_today(name):
    with torch.device("meta"):
        config = create_model(name, **OLD_FIELDS[name]).config
    read = json.loads(json.dumps(asdict(config)))
    assert {field: read[field] for field in OLD_FIELDS[name]} == OLD_FIELDS[name]
    assert not any(value for field, value in read.items() if field not in OLD_FIELDS[name])  # as without it


def test_what_no_dictionary_has_is_refused_in_every_combination():
    for name in ("dcae", "elic-dictionary"):
        with pytest.raises(ValueError, match="dict_heads is 0, expected 1 to 256"):
            create_model(name, dict_heads=0)
        with pytest.raises(ValueError, match="N is 190, expected a multiple of 32"):
            create_model(name, N=190)


@torch.inference_mode()
def test_elic_with_a_dictionary_tells_how_its_last_group_uses_it():
    torch.manual_seed(0)
    model = create_model("elic-small-both").eval()
    z_hat, y_hat = torch.randn(1, 48, 1, 2), torch.randn(1, 128, 4, 8)
    found = model.explanations(z_hat, 1.0, y_hat)["dictionary"]
    assert found.shape == (64, 4, 8)
    torch.testing.assert_close(found.sum(0), torch.ones(4, 8))
    changed = y_hat.clone()
    changed[:, -64:] = 0  # of the last group itself nothing is known
    assert torch.equal(model.explanations(z_hat, 1.0, changed)["dictionary"], found)
    changed[:, :-64] = 0
    assert not torch.allclose(model.explanations(z_hat, 1.0, changed)["dictionary"], found)


@torch.inference_mode()
def test_elic_asks_its_dictionary_over_tiles(monkeypatch):
    torch.manual_seed(0)
    model = create_model("elic-small-both", **tiny_sizes_of("elic-small-both")).eval()
    walker, z_hat = model.entropy_walker(), torch.randn(1, 8, 12, 10).round().double()
    tiled, names, bounded, tiles = set(), [], type(walker).bounded, Chain.tiles
    monkeypatch.setattr(
        type(walker), "bounded", lambda self, name, *given: (names.append(name), bounded(self, name, *given))[1]
    )
    monkeypatch.setattr(Chain, "tiles", lambda *given: (tiled.add(names[-1]), tiles(*given))[1])
    whole, over_tiles = (walker.code(z_hat, 1.0, lambda i, mu, _: mu.round(), memory=bound) for bound in (None, 3e6))
    torch.testing.assert_close(over_tiles, whole, rtol=1e-10, atol=1e-10)
    assert tiled >= {f"dictionary {k}" for k in range(model.slices)}


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
