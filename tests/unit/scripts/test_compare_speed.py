"""The comparison of speed, on a picture of a few pixels."""

import numpy as np
import pytest
import torch

from tto.padding import to_tensor


@pytest.mark.parametrize("family", ["elic", "cheng2020-anchor", "mbt2018-mean-vbr"])
def test_every_family_has_natural_latents_in_both_coders(script, photograph, tmp_path, monkeypatch, family):
    """Both code the same latents, so that their files are of one size."""
    photograph(64, 64).save(tmp_path / "a.png")
    sizes, networks, honest, load = [], [], script.measure, script.load_codec

    def measure(encode, decode, coder, runs):
        encoded = encode()
        sizes.append(len(encoded) if isinstance(encoded, bytes) else count_bytes(encoded["strings"]))
        return honest(encode, decode, coder, runs)

    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(script, "load_codec", lambda network, device: networks.append(network) or load(network, device))
    rows = script.measure_families([family], tmp_path / "a.png", 6, runs=1)
    assert list(rows) == [f"{family}, {coder}" for coder in ("CompressAI", "native", "portable")]
    with torch.no_grad():
        y = networks[0].g_a(to_tensor(np.asarray(photograph(64, 64))))
    assert 0.4 < float(y.std()) < 0.9
    assert min(sizes) > 100 and max(sizes) < 1.2 * min(sizes) + 60


def count_bytes(strings) -> int:
    return len(strings) if isinstance(strings, bytes) else sum(map(count_bytes, strings))


def test_a_family_is_timed_beside_compressais_own_coder(script, photograph, tmp_path):
    photograph(70, 50).save(tmp_path / "a.png")
    rows = script.measure_families(["bmshj2018-factorized"], tmp_path / "a.png", 1, runs=1)
    assert list(rows) == [f"bmshj2018-factorized, {coder}" for coder in ("CompressAI", "native", "portable")]
    for timing, base in rows.values():
        assert base is rows["bmshj2018-factorized, CompressAI"][0]
        assert len(timing.encode) == len(timing.decode) == 1 and min(timing.encode + timing.decode) > 0
