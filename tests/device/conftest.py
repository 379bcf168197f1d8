"""Devices that are not there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from tests.device.simulated import simulated
from tests.unit.base_models.conftest import make_lively
from tto.codec import Codec

HAS_FLOAT64 = {"xpu": True, "mps": False}
"""One like a GPU, and one like Apple's: what runs on the latter runs on the former, but for walks in float64."""


@pytest.fixture(params=["mps"])
def device(request, monkeypatch) -> Iterator[torch.device]:
    """One of them, as `tto.device` finds it."""
    monkeypatch.setattr("tto.device._count", lambda kind: 1)
    with simulated(request.param, HAS_FLOAT64[request.param]) as found:
        yield found


@pytest.fixture(scope="session")
def make_codec(photograph, make_side_modules) -> Callable[[str, str], Codec]:
    """`make_codec(name, device)`: of a tiny model whose latents have natural scales, with side modules."""
    models = {}

    def make(name: str, device: str) -> Codec:
        if name not in models:
            pixels = np.stack([np.asarray(photograph(128, 128, seed)) for seed in range(3)])
            models[name] = make_lively(name, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
        return Codec(copy.deepcopy(models[name]), device, make_side_modules(models[name].y_channels))

    return make


@pytest.fixture
def codecs(make_codec, device) -> tuple[Codec, Codec]:
    """The CPU's and the device's, of one network."""
    return make_codec("dcae-small", "cpu"), make_codec("dcae-small", device.type)
