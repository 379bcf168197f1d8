"""Side information in a file: what it does to the picture, and who can read it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tto.codec import Codec
from tto.container import Container, SectionType, read, write
from tto.errors import BadArgument, CorruptFile, WrongLength, WrongModel
from tto.image import load_picture
from tto.reconstruction import Frame
from tto.side.coder import SideCoder
from tto.side.codes import NO_CODE
from tto.side.compensation import Compensation, CompensationCoder
from tto.side.filter import ROWS, TAPS, Filter, FilterCoder, FilterLevels
from tto.side.side import NO_SIDE
from tto.side.transform import Syntax, Transform

SYNTAX = Syntax((1, -2, 3, 0, 0, 1, 4, -3, 2), 4)
LEVELS = FilterLevels(((0, -1, 0, 1, 2, -2, 5, 0, 0, 0, 3, 8),) * ROWS, 6)
assert len(LEVELS.levels[0]) == len(TAPS)


@pytest.fixture(scope="module")
def packed(side_codec, photograph):
    """`packed(side)`: the file of one picture with that side information."""
    picture = load_picture(photograph(100, 70))
    y, z = side_codec.analyse(picture.rgb, 4.0)

    def pack(side=NO_SIDE) -> bytes:
        return side_codec.pack(picture, y, z, 4.0, side=side).data

    return pack


def codes_at(*positions) -> np.ndarray:
    codes = np.full((8, 8), NO_CODE)
    for row, column in positions:
        codes[row, column] = (row + column) % 16
    return codes


def decoded(codec, data: bytes) -> np.ndarray:
    return np.asarray(codec.decompress(data)).astype(int)


def test_a_mask_that_is_off_everywhere_is_the_file_without(packed, side_codec, side_of):
    side = side_of(side_codec.side_coder, codes_at())
    assert side.bits == 0
    assert packed(side) == packed()


def test_a_code_changes_the_picture_near_its_position(packed, side_codec, side_of):
    data = packed(side_of(side_codec.side_coder, codes_at((1, 1))))
    change = np.abs(decoded(side_codec, data) - decoded(side_codec, packed())).sum(2)
    assert change[16:32, 16:32].max() > 0
    assert change[-8:, -8:].max() == 0


def test_transform_is_applied_to_float_pixels(packed, side_codec, side_of):
    side = side_of(side_codec.side_coder, syntax=SYNTAX)
    y_hat = torch.zeros(1, side_codec.model.config.M, 8, 8)
    plain, transformed = (side_codec.pixels(y_hat, 4.0, Frame(70, 100), s).astype(float) for s in (NO_SIDE, side))
    expected = plain @ (torch.eye(3) + side.get(Transform).matrix[0]).numpy().T
    assert np.abs(transformed - expected.clip(0, 255)).max() <= 1.5
    assert np.abs(transformed - plain).max() > 2


def test_filter_comes_before_the_transform_and_needs_no_side_modules(packed, side_codec, side_of):
    coder = side_codec.side_coder
    filtered, both = side_of(coder, levels=LEVELS), side_of(coder, syntax=SYNTAX, levels=LEVELS)
    x_hat = torch.rand(1, 3, 20, 30)
    expected = side_of(coder, syntax=SYNTAX).on_picture(filtered.on_picture(x_hat))
    assert torch.equal(both.on_picture(x_hat), expected)
    data = packed(filtered)
    assert np.abs(decoded(side_codec, data) - decoded(side_codec, packed())).max() > 2
    assert np.array_equal(decoded(Codec(side_codec.model, device="cpu"), data), decoded(side_codec, data))


def test_a_model_without_side_modules_makes_filters_alone(side_of):
    coder = SideCoder()
    assert FilterCoder in coder and CompensationCoder not in coder
    assert side_of(coder, levels=LEVELS).bits > 0
    with pytest.raises(BadArgument, match="no side information of kind compensation"):
        side_of(coder, codes_at((1, 1)))


def test_a_part_takes_the_place_of_the_one_of_its_kind(side_codec, side_of):
    coder = side_codec.side_coder
    whole = side_of(coder, codes_at((1, 1)), SYNTAX, LEVELS)
    other = coder[FilterCoder].make(FilterLevels(LEVELS.levels, 7))
    assert whole.with_(other).parts == (whole.parts[0], other, whole.parts[2])
    assert whole.without(Filter).parts == (whole.parts[0], whole.parts[2])
    assert whole.without(Filter).with_(other).parts == whole.with_(other).parts


def test_a_filter_of_zeros_is_the_file_without(packed, side_codec, side_of):
    assert packed(side_of(side_codec.side_coder, levels=FilterLevels(((0,) * len(TAPS),) * ROWS, 6))) == packed()


def test_bits_are_what_the_file_grows_by(packed, side_codec, side_of):
    for side in (
        side_of(side_codec.side_coder, codes_at((0, 0), (3, 4), (7, 7))),
        side_of(side_codec.side_coder, codes_at((2, 2)), SYNTAX),
        side_of(side_codec.side_coder, codes_at((2, 2)), SYNTAX, LEVELS),
    ):
        assert side.bits == 8 * (len(packed(side)) - len(packed()))


def test_reading_gives_back_what_was_written(side_codec, side_of):
    coder = side_codec.side_coder
    side = side_of(coder, codes_at((0, 0), (3, 4)), SYNTAX, LEVELS)
    again = coder.read(side.sections, (8, 8))
    (compensation, of_filter, transform), others = side.parts, again.parts
    assert [type(part) for part in others] == [Compensation, Filter, Transform] == [type(part) for part in side.parts]
    assert np.array_equal(others[0].codes, compensation.codes) and torch.equal(others[0].added, compensation.added)
    assert others[1].levels == of_filter.levels and torch.equal(others[1].coefficients, of_filter.coefficients)
    assert others[2].syntax == transform.syntax and torch.equal(others[2].matrix, transform.matrix)
    assert again.sections == side.sections
    assert transform.matrix.dtype == torch.float64


def test_side_modules_that_are_absent_or_others_are_named(packed, side_codec, side_of, other_side_modules):
    data = packed(side_of(side_codec.side_coder, codes_at((1, 1))))
    with pytest.raises(WrongModel, match="made with side modules, which this model does not have"):
        Codec(side_codec.model, device="cpu").decompress(data)
    other = Codec(side_codec.model, "cpu", other_side_modules)
    with pytest.raises(WrongModel, match=f"other side modules .*{side_codec.side_coder.fingerprint.hex()}"):
        other.decompress(data)
    assert Codec(side_codec.model, device="cpu").decompress(packed()).size == (100, 70)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (SectionType.COMPENSATION, WrongLength),
        (SectionType.SYNTAX, WrongLength),
        (SectionType.FILTER, CorruptFile),
    ],
)
def test_a_damaged_section_is_named(packed, side_codec, side_of, kind, cause):
    container = read(packed())
    short = write(Container(container.header, {**container.sections, kind: b"abc"}))
    with pytest.raises(cause, match=f"section {kind.name.lower()}"):
        side_codec.decompress(short)
