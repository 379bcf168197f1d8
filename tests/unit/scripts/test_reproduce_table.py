from __future__ import annotations

import numpy as np
import pytest

from tto.codec import Codec
from tto.models import load_model


def test_dcae_has_the_size_and_the_operations_of_the_paper(script):
    figures = script.arithmetic("dcae")
    assert figures["parameters"] == pytest.approx(119.4, abs=0.05)
    assert figures["encoder as in papers"] == pytest.approx(252, abs=0.5)
    assert figures["decoder as in papers"] == pytest.approx(305, abs=0.5)
    assert figures["encoder"] == pytest.approx(254, abs=0.5)
    assert figures["decoder"] == pytest.approx(253, abs=0.5)


THAT_LOOK_AT_VALUES = ("mbt2018", "cheng2020-anchor", "cheng2020-attn", "mbt2018-mean-vbr", "bmshj2018-hyperprior-vbr")


@pytest.mark.parametrize("name", ["elic-small", "grm-small", *THAT_LOOK_AT_VALUES])
def test_every_network_is_counted(script, name):
    figures = script.arithmetic(name, 128, 128)
    assert all(value > 0 for value in figures.values())


def test_the_parts_of_the_time_add_up(script, tiny_checkpoint):
    codec = Codec(load_model(str(tiny_checkpoint)), "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    times = script.time_parts(codec, pixels, repeats=1)
    assert list(times) == ["encode", "decode"]
    for parts in times.values():
        assert all(seconds > 0 for seconds in parts.values())
        assert parts["total"] == pytest.approx(sum(parts.values()) - parts["total"])
    assert codec.model.code.__name__ == "code"  # nothing stays patched
