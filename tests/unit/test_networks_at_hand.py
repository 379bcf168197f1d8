"""Networks of CompressAI's that a user has: as objects, and as checkpoints of his own."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

import tto
from base_models import fingerprint, load_checkpoint, save_checkpoint
from tests.compressai_networks import small_network, variable_network
from tto.cli import main
from tto.errors import BadArgument


def test_a_network_at_hand_is_a_codec(photograph):
    network = small_network(5)
    codec = tto.load_codec(network, "cpu")
    result = codec.compress(photograph(64, 64), effort="fast")
    assert result.base_J > result.J
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    with pytest.raises(BadArgument, match="Linear: its tensors are of no network that is known: .*mbt2018-mean"):
        tto.load_codec(torch.nn.Linear(2, 2))


def test_a_checkpoint_that_does_not_say_what_it_was_trained_for_is_told_of(tmp_path, caplog):
    torch.save(small_network(5).state_dict(), tmp_path / "a.pth.tar")
    with caplog.at_level(logging.WARNING, "tto"):
        codec = tto.load_codec(str(tmp_path / "a.pth.tar"), "cpu")
        assert "a.pth.tar: λ = 0.013 and MSE are assumed; 'tto models convert" in caplog.messages[0]
        caplog.clear()
        save_checkpoint(codec.model, tmp_path / "a.safetensors")
        tto.load_codec(str(tmp_path / "a.safetensors"), "cpu")
        torch.save(variable_network().state_dict(), tmp_path / "b.pth.tar")
        tto.load_codec(str(tmp_path / "b.pth.tar"), "cpu")
    assert caplog.messages == []


def test_a_network_at_hand_is_refined_for_what_it_was_trained_for(photograph, caplog):
    network, image = small_network(5), photograph(64, 64)
    with caplog.at_level(logging.WARNING, "tto"):
        told = tto.load_codec(network, "cpu", lambda_=0.05, metric="ms-ssim")
        assert caplog.messages == []
        silent = tto.load_codec(network, "cpu")
    assert caplog.messages == [
        "MeanScaleHyperprior: λ = 0.013 and MSE are assumed; lambda_ and metric say what it was trained for"
    ]
    assert (float(told.model.lambda_at(1)), told.model.metric) == (pytest.approx(0.05), "ms-ssim")
    assert (float(silent.model.lambda_at(1)), silent.model.metric) == (pytest.approx(0.013), "mse")
    result, same = (codec.compress(image, effort="none", metric="mse") for codec in (told, silent))
    assert result.data == same.data and result.J > same.J


@pytest.mark.parametrize("given", [{"lambda_": 0.05}, {"metric": "mse"}])
def test_what_says_itself_what_it_was_trained_for_is_not_told(given, tiny_checkpoint, caplog):
    for model in ("dcae-small", str(tiny_checkpoint), "mbt2018-mean", load_checkpoint(tiny_checkpoint)):
        with pytest.raises(BadArgument, match="says itself what it was trained for"):
            tto.load_codec(model, "cpu", **given)
    if "lambda_" in given:
        with pytest.raises(BadArgument, match="its gains say its rates"):
            tto.load_codec(variable_network(), "cpu", **given)
    else:
        assert tto.load_codec(variable_network(), "cpu", **given).qualities == 8
    assert caplog.messages == []


def test_what_no_network_is_trained_for_is_refused():
    for given, said in (({"metric": "lpips"}, "mse or ms-ssim"), ({"lambda_": -1.0}, "expected numbers from")):
        with pytest.raises(BadArgument, match=said):
            tto.load_codec(small_network(5), "cpu", **given)


def test_a_network_of_variable_rate_at_hand_has_its_qualities(photograph, tmp_path):
    network = variable_network()
    codec = tto.load_codec(network, "cpu")
    result = codec.compress(photograph(64, 64), 6.5, effort="fast")
    assert codec.qualities == 8 and result.base_J > result.J
    assert np.array_equal(np.asarray(codec.decompress(result.data)), np.asarray(result.image))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with pytest.raises(SystemExit) as end:
        main(["models", "convert", str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors")])
    assert not end.value.code
    assert fingerprint(load_checkpoint(tmp_path / "a.safetensors")) == codec.fingerprint


def test_a_users_checkpoint_is_converted_without_its_name(tmp_path):
    network = small_network(6)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, tmp_path / "a.pth"
    )
    with pytest.raises(SystemExit) as end:
        main(["models", "convert", str(tmp_path / "a.pth"), str(tmp_path / "a.safetensors"), "--lambda", "0.0067"])
    assert not end.value.code
    model = load_checkpoint(tmp_path / "a.safetensors")
    assert (model.registered_name, model.config.N, model.config.M) == ("mbt2018-mean", 16, 16)
    assert float(model.lambda_at(1)) == pytest.approx(0.0067)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x)["x_hat"], network(x)["x_hat"])
