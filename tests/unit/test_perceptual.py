from __future__ import annotations

import sys
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch

from tto import perceptual
from tto.errors import NotInstalled
from tto.perceptual import load_distance, score_pixels


@pytest.fixture(autouse=True)
def forget():
    """No network lasts from one test to the next."""
    load_distance.cache_clear()
    yield
    load_distance.cache_clear()


@pytest.fixture
def install(monkeypatch):
    """A function that puts a stand-in where a package would be."""

    def install(name: str, **contents) -> None:
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**contents))

    monkeypatch.setattr(perceptual, "require", lambda package, extra: None)
    return install


class Difference(torch.nn.Module):
    def forward(self, original, decoded, normalize=False):
        assert original.shape == (1, 3, 4, 5)
        return (2 if normalize else 1) * (decoded - original).mean().view(1, 1, 1, 1)


def flat(value: int) -> np.ndarray:
    return np.full((4, 5, 3), value, np.uint8)


def test_each_network_gets_pixels_in_the_range_it_expects(install):
    install("lpips", LPIPS=lambda net, verbose: Difference())
    install("piq", DISTS=Difference)
    assert score_pixels(load_distance("lpips"), flat(0), flat(255)) == pytest.approx(2)  # told that it is [0, 1]
    assert score_pixels(load_distance("dists"), flat(0), flat(255)) == pytest.approx(1)


def test_a_distance_has_gradients_for_the_reconstruction_alone(install):
    install("piq", DISTS=Difference)
    x_hat = torch.rand(1, 3, 4, 5, requires_grad=True)
    value = load_distance("dists")(torch.rand(1, 3, 4, 5), x_hat)
    assert value.shape == ()
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert gradient.mean() == pytest.approx(1 / 60)


def test_weights_that_cannot_be_downloaded_are_one_line_that_names_them(install, capsys):
    def offline():
        sys.stdout.write("Downloading ...")
        sys.stderr.write("0 %")
        raise URLError("no route to host")

    install("piq", DISTS=offline)
    with pytest.raises(
        NotInstalled, match="dists: weights cannot be downloaded .*no route.*; put .*dists_weights.pt into"
    ):
        load_distance("dists")
    assert capsys.readouterr() == ("", "")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("tto.packages.find_spec", lambda package: None)
    with pytest.raises(NotInstalled, match=r"needs the package lpips: pip install 'tto\[bench\]'"):
        load_distance("lpips")
