"""Which models published `.bin` files can be made with; what is in them is tested end to end."""

import struct

import numpy as np
import pytest

from base_models import create_model
from tto.codec import Codec
from tto.errors import BadArgument, CorruptFile, LimitExceeded, NotEnoughMemory
from tto.published_bin import decode_bin, encode_bin


@pytest.mark.parametrize(
    ("name", "config", "said"),
    [
        ("dcae-small", {}, "one rate"),
        ("bmshj2018-factorized", {"N": 8, "M": 8, "lambdas": (0.01,)}, "less its mean"),
        ("mbt2018", {"N": 8, "M": 8, "lambdas": (0.01,)}, "less its mean"),
    ],
)
def test_models_that_code_otherwise_are_refused(name, config, said):
    model = create_model(name, **config).eval()
    model.update_tables()
    codec = Codec(model, "cpu")
    with pytest.raises(BadArgument, match=said):
        encode_bin(codec, np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(BadArgument, match=said):
        decode_bin(codec, bytes(100))


def test_a_file_that_claims_too_much_is_refused_before_anything_is_decoded(monkeypatch):
    model = create_model("dcae-small", lambdas=(0.01,)).eval()
    monkeypatch.setattr("tto.published_bin.decompress_bin", lambda *_: pytest.fail("it decodes"))
    codec = Codec(model, "cpu")
    with pytest.raises(LimitExceeded, match="30000x30000 has more than"):
        decode_bin(codec, struct.pack(">HHII", 30_000, 30_000, 0, 0))
    with pytest.raises(CorruptFile, match="truncated"):
        decode_bin(codec, struct.pack(">HH", 30_000, 30_000))


def test_a_picture_that_memory_does_not_suffice_for_is_refused(monkeypatch):
    codec = Codec(create_model("dcae-small", lambdas=(0.01,)).eval(), "cpu")
    monkeypatch.setattr("tto.memory.free_memory", lambda device: 1000)
    with pytest.raises(NotEnoughMemory, match="16x8"):
        encode_bin(codec, np.zeros((8, 16, 3), np.uint8))
