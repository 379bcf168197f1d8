"""Alpha and metadata are kept exactly, in a bounded number of bytes."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from tto.attachments import MAX_METADATA_BYTES, pack_alpha, pack_attachments, unpack_alpha, unpack_attachments
from tto.container import SectionType
from tto.errors import CorruptFile, LimitExceeded, WrongLength
from tto.image import Picture

RGB = np.zeros((3, 4, 3), np.uint8)
ROWS, COLUMNS = np.mgrid[0:33, 0:50].astype(np.uint8)
PLANES = {
    "constant": np.full((33, 50), 255, np.uint8),
    "mask": ((ROWS // 7 + COLUMNS // 5) % 2 * 255).astype(np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (33, 50), dtype=np.uint8),
    "ramp": (4 * COLUMNS).astype(np.uint8),
    "tilted ramp": (3 * ROWS + 2 * COLUMNS).astype(np.uint8),
    "pixel": np.array([[7]], np.uint8),
    "row": np.arange(0, 200, 3, dtype=np.uint8)[None],
}


@pytest.mark.parametrize("name", PLANES)
def test_alpha_comes_back_exactly(name):
    plane = PLANES[name]
    assert np.array_equal(unpack_alpha(pack_alpha(plane), plane.shape[1], plane.shape[0]), plane)


def test_alpha_is_never_much_larger_than_the_plane_and_small_where_it_can_be():
    sizes = {name: len(pack_alpha(plane)) for name, plane in PLANES.items()}
    assert sizes["constant"] == 2 and sizes["pixel"] == 2
    assert sizes["mask"] < 60 and sizes["tilted ramp"] < 60
    assert sizes["noise"] <= PLANES["noise"].size + 20


def test_alpha_of_known_values_has_known_bytes():
    assert pack_alpha(np.full((2, 2), 9, np.uint8)) == b"\x00\x09"
    body = pack_alpha(np.array([[255, 0, 255]], np.uint8))
    assert body[0] == 1 and zlib.decompress(body[1:]) == b"\xa0"


def test_alpha_bomb_is_refused_before_it_takes_memory():
    bomb = b"\x02" + zlib.compress(bytes(10_000_000))
    with pytest.raises(LimitExceeded, match="alpha grows to more than 12 bytes"):
        unpack_alpha(bomb, 4, 3)


@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00ab", b"\x09", b"\x02not deflated"])
def test_bad_alpha_is_refused(body):
    with pytest.raises(CorruptFile, match="alpha"):
        unpack_alpha(body, 4, 3)


@pytest.mark.parametrize(
    "deflated", [zlib.compress(bytes(11)), zlib.compress(bytes(12)) + b"x", zlib.compress(bytes(12))[:-1]]
)
def test_alpha_of_another_length_is_refused(deflated):
    with pytest.raises(WrongLength, match="alpha"):
        unpack_alpha(b"\x02" + deflated, 4, 3)


def test_picture_without_attachments_has_no_sections():
    assert pack_attachments(Picture(RGB)) == {}


def test_attachments_come_back_exactly():
    alpha = np.arange(12, dtype=np.uint8).reshape(3, 4)
    picture = Picture(RGB, True, alpha, icc=b"icc" * 100, exif=b"Exif\0\0II*\0", xmp=b"<x/>")
    sections = pack_attachments(picture)
    assert set(sections) == {SectionType.ALPHA, SectionType.ICC, SectionType.EXIF, SectionType.XMP}
    assert zlib.decompress(sections[SectionType.EXIF]) == b"II*\0"
    back = unpack_attachments(RGB, True, sections)
    assert (back.icc, back.exif, back.xmp, back.grayscale) == (picture.icc, picture.exif, picture.xmp, True)
    assert np.array_equal(back.alpha, alpha)


def test_metadata_bomb_is_refused():
    bomb = zlib.compress(bytes(MAX_METADATA_BYTES + 1))
    with pytest.raises(LimitExceeded, match="icc"):
        unpack_attachments(RGB, False, {SectionType.ICC: bomb})
    with pytest.raises(LimitExceeded, match="XMP"):
        pack_attachments(Picture(RGB, xmp=bytes(MAX_METADATA_BYTES + 1)))
