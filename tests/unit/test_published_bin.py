"""Which models published `.bin` files can be made with; what is in them is tested end to end."""

import numpy as np
import pytest

from base_models import create_model
from tto.codec import Codec
from tto.errors import BadArgument
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
