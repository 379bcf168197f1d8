"""Files of the shipped model decode to what they did when they were made, on any machine.

Both are 96×80 of `tto/data/demo.png`, made by version 0.1.0. `best.tto`: quality 6, effort best, with 16 times the
quality's own λ, so that every kind of side information pays. `fast.tto`: quality 3, effort fast, gray, with an alpha
plane. A `.png` beside each is what its decoder gave.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tto.codec import load_codec
from tto.container import SectionType, read
from tto.entropy_coding import SymbolDecoder

FOLDER = Path(__file__).parent / "files"
SIDE = {SectionType.COMPENSATION, SectionType.FILTER, SectionType.SYNTAX, SectionType.SCALE_QP}
SYMBOLS = {
    "best": "05a28b4935fd78ef726f10935040987865a4440e3eebab2ca78323852193ef5d",
    "fast": "169f9258693e8e534c3e63ce70bb45b73427f36a77a60773cc50a8c6b278909d",
}


@pytest.fixture(scope="module")
def shipped():
    return load_codec("dcae-small", device="cpu")


@pytest.fixture
def coded(monkeypatch):
    """Tables and symbols of everything that is decoded, in order, as one digest."""
    digest, decode = sha256(), SymbolDecoder.decode

    def listening(decoder, indexes, tables):
        symbols = decode(decoder, indexes, tables)
        for numbers in (indexes, symbols):
            digest.update(np.asarray(numbers).astype("<i8").tobytes())
        return symbols

    monkeypatch.setattr(SymbolDecoder, "decode", listening)
    return digest


@pytest.mark.parametrize("name", SYMBOLS)
def test_symbols_are_the_same_and_pixels_within_one_level(shipped, coded, name):
    decoded = shipped.decompress((FOLDER / f"{name}.tto").read_bytes())
    assert coded.hexdigest() == SYMBOLS[name]
    with Image.open(FOLDER / f"{name}.png") as expected:
        assert decoded.mode == expected.mode and decoded.size == expected.size
        assert np.abs(np.asarray(decoded).astype(int) - np.asarray(expected)).max() <= 1


def test_the_files_have_every_kind_of_section_that_changes_pixels():
    best, fast = (read((FOLDER / f"{name}.tto").read_bytes()) for name in SYMBOLS)
    assert set(best.sections) >= SIDE
    assert fast.header.grayscale and SectionType.ALPHA in fast.sections
