"""A device that is not there is refused by its name."""

from __future__ import annotations

import pytest
import torch

from tto.device import pick_device
from tto.errors import BadArgument


def test_devices_have_pytorchs_names(monkeypatch):
    monkeypatch.setattr("tto.device._count", lambda kind: 2)
    monkeypatch.setattr("tto.device._has_float64", lambda device: True)
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(BadArgument, match="no cuda:2 on this machine"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["abacus", "meta", "", "cuda:x"])
def test_other_names_are_refused(name):
    with pytest.raises(BadArgument, match="unknown device"):
        pick_device(name)


def test_a_device_without_float64_is_refused(monkeypatch):
    monkeypatch.setattr("tto.device._count", lambda kind: 1)
    monkeypatch.setattr("tto.device._has_float64", lambda device: device.type == "cpu")
    with pytest.raises(BadArgument, match="mps has no float64"):
        pick_device("mps")
