"""`tto.compress` and `tto.decompress` take what is at hand, and load a model once."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import tto
from base_models import create_model, load_checkpoint, save_checkpoint
from tto import api
from tto.errors import BadArgument, NotATTOFile, UnsupportedImage, WrongModel


@pytest.fixture(scope="module")
def pixels(photograph) -> np.ndarray:
    return np.asarray(photograph(40, 30))


@pytest.fixture
def compressed(pixels, tiny_checkpoint) -> tto.Result:
    return tto.compress(pixels, 3, model=str(tiny_checkpoint))


def test_every_kind_of_picture_gives_the_same_file(pixels, tiny_checkpoint, compressed, tmp_path):
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    data = (tmp_path / "a.png").read_bytes()
    for kind in (image, tmp_path / "a.png", str(tmp_path / "a.png"), data, io.BytesIO(data), tensor, tensor / 255):
        assert tto.compress(kind, 3, model=str(tiny_checkpoint)).data == compressed.data


def test_every_kind_of_file_is_decompressed(compressed, tiny_checkpoint, tmp_path):
    path = tmp_path / "a.tto"
    path.write_bytes(compressed.data)
    for kind in (compressed.data, bytearray(compressed.data), path, str(path), io.BytesIO(compressed.data)):
        decoded = tto.decompress(kind, models=[str(tiny_checkpoint)])
        assert np.array_equal(np.asarray(decoded), compressed.array)
    assert compressed.array.shape == (30, 40, 3)


def test_options_reach_the_codec_and_quality_has_a_default(pixels, tiny_checkpoint, compressed):
    assert tto.compress(pixels, 3, model=str(tiny_checkpoint), steps=3).steps == 3
    from tto.container import read

    assert read(tto.compress(pixels, model=str(tiny_checkpoint)).data).header.quality == 4.0


def test_deep_pictures_are_converted_on_request(tiny_checkpoint):
    deep = Image.fromarray(np.arange(0, 65_536, 64, np.uint16).reshape(32, 32))
    with pytest.raises(UnsupportedImage, match="convert=True"):
        tto.compress(deep, model=str(tiny_checkpoint))
    assert tto.compress(deep, model=str(tiny_checkpoint), convert=True).image.mode == "L"


def test_a_model_is_loaded_once_until_its_file_changes(pixels, tiny_checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    loaded = []
    monkeypatch.setattr(api, "load_codec", lambda *args: loaded.append(args) or SimpleNamespace(device="cpu"))
    first = api.cached_codec(str(path), "cpu")
    assert api.cached_codec(str(path), "cpu") is first and len(loaded) == 1
    path.touch()
    assert api.cached_codec(str(path), "cpu") is not first


def test_a_damaged_file_is_refused_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(api, "cached_codec", lambda *args: pytest.fail("loaded too early"))
    with pytest.raises(NotATTOFile):
        tto.decompress(b"nothing")


def test_a_missing_model_is_said_in_words_for_both_doors(compressed, monkeypatch, tmp_path):
    monkeypatch.setattr("tto.models.weights_folder", lambda: tmp_path)
    with pytest.raises(WrongModel, match=r"-m FILE \(models=\[FILE\]\), or .* 'tto models pull OWNER/NAME'"):
        tto.decompress(compressed.data)


@pytest.mark.parametrize("thing", [None, 3, object()])
def test_what_is_no_picture_is_named(thing):
    with pytest.raises(BadArgument, match=f"not {type(thing).__name__}$"):
        tto.compress(thing)


def test_names_are_listed_and_importing_the_package_loads_nothing():
    program = (
        "import sys, tto; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; "
        "assert {'compress', 'decompress', 'Callbacks', 'load_codec'} <= set(dir(tto)); "
        "assert all(getattr(tto, name) is not None for name in tto.__all__)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_family_is_asked_only_for_files_of_nobody_else(pixels, tiny_checkpoint, compressed, monkeypatch):
    monkeypatch.setattr("tto.zoo.fetch_weights", lambda *_: pytest.fail("it downloads"))
    decoded = tto.decompress(compressed.data, models=["mbt2018-mean", str(tiny_checkpoint)])
    assert np.array_equal(np.asarray(decoded), compressed.array)


def test_a_region_and_a_picture_are_converted_where_they_have_to_be(tiny_checkpoint):
    codec = tto.load_codec(str(tiny_checkpoint), "cpu")
    cmyk, mask = Image.new("CMYK", (20, 20), (9, 80, 30, 0)), Image.new("I;16", (20, 20), 40_000)
    with pytest.raises(UnsupportedImage):
        codec.compress(cmyk, 3)
    assert codec.compress(cmyk, 3, convert=True, roi=mask, steps=1).width == 20


def test_a_network_at_hand_is_copied_frozen_and_given_tables(tiny_sizes, pixels):
    network = create_model("dcae-small", **tiny_sizes).train()
    codec = tto.load_codec(network, "cpu")
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in codec.model.parameters())
    assert codec.compress(pixels, effort="none").data


def test_a_checkpoint_knows_what_it_was_trained_for(tiny_checkpoint, tmp_path, photograph):
    model = load_checkpoint(tiny_checkpoint)
    assert model.metric == "mse"
    model.metric = "ms-ssim"
    save_checkpoint(model, tmp_path / "ms-ssim.safetensors")
    codec = tto.load_codec(str(tmp_path / "ms-ssim.safetensors"), "cpu")
    picture = photograph(176, 168)
    results = [codec.compress(picture, 3, steps=0, metric=metric) for metric in (None, "ms-ssim", "mse")]
    assert results[0].data == results[2].data and results[0].J == results[1].J != results[2].J
