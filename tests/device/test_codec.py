"""Files and pixels that a device makes; its arithmetic is the CPU's here, so they are those of the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tto.memory
from base_models.tiles import Chain
from tests.device.conftest import HAS_FLOAT64
from tests.unit.side.test_side import LEVELS, SYNTAX
from tto.explain import explain
from tto.image import load_picture
from tto.memory import Room
from tto.published_bin import compress_to_bin, decode_bin
from tto.side.adaptation import AdaptationCoder, Changes
from tto.side.codes import NO_CODE

QUALITY = 1.5
NETWORKS = (
    "dcae-global-token", "tcm", "elic-both", "ftic-small", "grm", "bmshj2018-factorized", "mbt2018", "mbt2018-mean-vbr",
)  # fmt: skip
"""One of each family."""


@pytest.mark.parametrize("device", HAS_FLOAT64, indirect=True)
@pytest.mark.parametrize("native", [False, True])
def test_unrefined_files_are_those_of_the_cpu(codecs, photograph, native):
    cpu, other = codecs
    picture = photograph(70, 50)
    ours, theirs = (codec.compress(picture, QUALITY, native=native) for codec in (other, cpu))
    assert ours.data == theirs.data and ours.J == theirs.J
    np.testing.assert_array_equal(np.asarray(other.decompress(theirs.data)), theirs.array)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_codes_there(name, make_codec, photograph, device):
    picture = photograph(64, 50)
    cpu, other = (make_codec(name, place) for place in ("cpu", device.type))
    quality = min(QUALITY, cpu.qualities)
    theirs = cpu.compress(picture, quality)
    assert other.compress(picture, quality, steps=2).base_bytes == theirs.bytes
    np.testing.assert_array_equal(np.asarray(other.decompress(theirs.data)), theirs.array)


@pytest.mark.parametrize("device", HAS_FLOAT64, indirect=True)
def test_large_pictures_go_over_tiles_there(codecs, photograph, monkeypatch):
    counts, tiles = [], Chain.tiles
    monkeypatch.setattr(Chain, "tiles", lambda chain, *of: counts.append(len(found := tiles(chain, *of))) or found)
    monkeypatch.setattr(tto.memory, "WHOLE", 0)
    for codec in codecs:
        monkeypatch.setattr(codec, "room", Room(1e5))
        monkeypatch.setattr(codec.latent_coder, "_room", Room(1e5))
    picture, files = photograph(130, 64), []
    for codec in codecs:
        counts.clear()
        files.append(codec.compress(picture, QUALITY))
        assert max(counts) > 1
    theirs, ours = files
    assert ours.data == theirs.data
    assert codecs[1].compress(picture, QUALITY, steps=2).J < ours.J


def test_all_side_information_is_read_there(codecs, photograph, side_of):
    picture, files = load_picture(photograph(70, 50)), []
    codes = np.full((8, 8), NO_CODE)
    codes[1, 2] = 3
    for codec in codecs:
        y, z = codec.analyse(picture.rgb, QUALITY)
        some = [(np.ones(len(x), int),) if x.dim() == 1 else () for x in codec.model.last_weights().values()]
        adaptation = codec.side_coder[AdaptationCoder].make(Changes(tuple(some), 6))
        side = side_of(codec.side_coder, codes, SYNTAX, LEVELS).with_(adaptation)
        files.append(codec.pack(picture, y, z, QUALITY, side=side).data)
    assert files[0] == files[1]
    theirs, ours = (np.asarray(codec.decompress(files[0])) for codec in codecs)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("device", HAS_FLOAT64, indirect=True)
@pytest.mark.parametrize("name", ["dcae-small", "grm"])
def test_files_are_explained_there(name, make_codec, photograph, device):
    codec, picture = make_codec(name, device.type), load_picture(photograph(70, 50))
    assert "bits.png" in explain(codec, picture, codec.compress(picture, min(QUALITY, codec.qualities)).data)


def test_published_files_are_written_and_read_there(make_codec, photograph, device):
    cpu, other = (make_codec("tcm", place) for place in ("cpu", device.type))
    theirs, ours = (compress_to_bin(codec, photograph(128, 128)) for codec in (cpu, other))
    assert ours.data == theirs.data and decode_bin(other, theirs.data)[1] == "float32"


def test_a_file_may_be_compressed_on_one_and_read_on_the_other(codecs, photograph):
    cpu, other = codecs
    data = other.compress(photograph(70, 50), QUALITY, steps=6).data
    assert torch.equal(*(torch.from_numpy(np.array(codec.decompress(data))) for codec in (cpu, other)))
