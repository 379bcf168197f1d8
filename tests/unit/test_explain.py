"""Pictures of a file's contents: their data are the file's, and each is a PNG that can be opened."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from base_models import create_model
from tests.tiny_models import tiny_sizes_of
from tto.codec import Codec
from tto.container import NEUTRAL_QP, SectionType, read, section_size
from tto.errors import NotEnoughMemory
from tto.explain import (
    _class_colors,
    draw_adaptation,
    draw_errors,
    draw_filter,
    draw_reference,
    explain,
    open_file,
    sizes_of_changes,
    synthesised,
    unfiltered,
)
from tto.image import load_picture
from tto.metrics import psnr
from tto.padding import to_uint8
from tto.side.adaptation import Adaptation, AdaptationCoder, Changes, scale_of
from tto.side.codes import NO_CODE
from tto.side.compensation import Compensation
from tto.side.filter import CLASSES, ROWS, Filter, FilterLevels
from tto.side.side import Side


@pytest.fixture(scope="module")
def picture(photograph):
    return load_picture(photograph(100, 70))


@pytest.fixture(scope="module")
def files(side_codec, picture, side_of):
    """A file with two codes and a filter, and one without side information."""
    codes = np.full((8, 8), NO_CODE)
    codes[1, 1:3] = 3, 5
    y, z = side_codec.analyse(picture.rgb, 4.0)
    levels = FilterLevels(((0, 0, 0, 0, 0, 0, -3, 0, 0, 0, 0, 2),) * ROWS, 6)
    sides = (side_of(side_codec.side_coder, codes, levels=levels), Side())
    return [side_codec.pack(picture, y, z, 4.0, side=side).data for side in sides]


def test_bits_add_up_to_the_section(side_codec, files):
    contents = open_file(side_codec, files[1])
    section = len(read(files[1]).sections[SectionType.Y]) - 4 * side_codec.model.slices
    assert contents.bits.shape == (8, 8)
    assert contents.bits.sum() / 8 == pytest.approx(section, rel=0.05)  # escapes cost a few bits more


def test_contents_are_what_the_decoder_gives(side_codec, files):
    contents = open_file(side_codec, files[0])
    assert np.array_equal(contents.rgb, np.asarray(side_codec.decompress(files[0])))
    assert np.argwhere(contents.side.get(Compensation).codes != NO_CODE).tolist() == [[1, 1], [1, 2]]
    assert contents.maps["dictionary"].shape == (side_codec.model.config.dict_entries, 8, 8)
    assert np.allclose(contents.maps["dictionary"].sum(0), 1)


def test_every_drawing_can_be_opened(side_codec, picture, files):
    drawings = explain(side_codec, picture, files[0])
    assert set(drawings) == {"bits.png", "error.png", "mask.png", "codes.png", "filter.png", "dictionary.png"}
    for data in drawings.values():
        image = Image.open(io.BytesIO(data))
        image.load()
        assert image.format == "PNG" and min(image.size) > 300


def test_without_refinement_is_what_the_result_says_of_it(side_codec, picture, monkeypatch):
    """Also where a search began with a coarser step, and in a file for one kind of machine."""
    lowest = side_codec.compress(picture, 1.0, effort="none")
    result = side_codec.compress(picture, effort="none", native=True, target_bpp=0.7 * lowest.bpp)
    drawn = []
    monkeypatch.setattr("tto.explain.draw_errors", lambda *args: drawn.append(args[1]) or draw_errors(*args))
    explain(side_codec, picture, result.data, result.base_qp)
    (before,) = drawn
    assert before.header.native and before.header.qp == result.base_qp > NEUTRAL_QP
    assert (before.size, psnr(picture.rgb, before.rgb)) == (result.base_bytes, result.base_psnr)


def codec_of(name: str, picture, **sizes) -> Codec:
    model = create_model(name, **sizes)
    crops = np.stack([picture.rgb[:64, left : left + 64] for left in (0, 18, 36)])
    model.init_from_images(torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255)
    model.update_tables(fit_quantiles=True)
    return Codec(model.eval().requires_grad_(False), "cpu")


def test_references_are_drawn_for_a_model_that_has_them(picture):
    codec = codec_of("grm", picture, N=8, M=16, hidden=24)
    data = codec.compress(Image.fromarray(picture.rgb), 1.0, effort="none").data
    contents = open_file(codec, data)
    assert {name: len(values) for name, values in contents.maps.items()} == {
        "similarity": 1, "confidence": 1, "saved": 2,
    }  # fmt: skip
    figure = draw_reference(picture, contents.maps, contents.y_block)
    drawn = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    expected = [contents.maps["similarity"][0], contents.maps["confidence"][0], *contents.maps["saved"]]
    assert len(drawn) == 4 and all(np.array_equal(one, other) for one, other in zip(drawn, expected, strict=True))
    assert "reference.png" in explain(codec, picture, data)


@pytest.mark.parametrize(
    ("name", "sizes", "drawing"),
    [("dcae-small-global-token", tiny_sizes_of("dcae-small-global-token"), "tokens.png"),
     ("grm", {"N": 8, "M": 16, "hidden": 24, "reference": False}, "reference.png")],
)  # fmt: skip
def test_what_other_models_look_at_is_drawn_as_what_it_is(name, sizes, drawing, picture):
    codec = codec_of(name, picture, **sizes)
    data = codec.compress(Image.fromarray(picture.rgb), 1.0, effort="none").data
    assert set(explain(codec, picture, data)) == {"bits.png", "error.png", drawing}


def test_a_picture_too_large_to_be_drawn_is_one_line(side_codec, picture, files, monkeypatch):
    monkeypatch.setattr("tto.memory.free_memory", lambda device: 1000)
    with pytest.raises(NotEnoughMemory, match="GB are free"):
        open_file(side_codec, files[1])


def test_the_filter_is_drawn_on_what_the_decoder_filters(side_codec, photograph, side_of):
    """Also where the picture is gray."""
    picture = load_picture(photograph(100, 70).convert("L"))
    latents = side_codec.analyse(picture.rgb, 4.0)
    levels = FilterLevels(((0, 0, 0, 0, 0, 0, -3, 0, 0, 0, 0, 2),) * ROWS, 6)
    data = side_codec.pack(picture, *latents, 4.0, side=side_of(side_codec.side_coder, levels=levels)).data
    contents = open_file(side_codec, data)
    x_hat = unfiltered(side_codec, contents)
    assert torch.equal(x_hat[:, 0], x_hat[:, 2])
    decoded = np.asarray(side_codec.decompress(data))
    assert np.array_equal(to_uint8(contents.side.get(Filter).on_picture(x_hat))[..., 0], decoded)


@pytest.fixture(scope="module")
def adapted(side_codec, picture):
    """A file whose last bias but one in green is half its tensor's root mean square higher, and that root."""
    weights = side_codec.model.last_weights()
    bias = np.zeros(3, np.int64)
    bias[1] = 8
    changes = Changes(((),) * (len(weights) - 1) + ((bias,),), 4)
    side = Side().with_(side_codec.side_coder[AdaptationCoder].make(changes))
    y, z = side_codec.analyse(picture.rgb, 4.0)
    return side_codec.pack(picture, y, z, 4.0, side=side).data, scale_of(list(weights.values())[-1])


def test_the_adaptation_is_drawn_as_what_it_changes(side_codec, picture, adapted):
    data, scale = adapted
    contents = open_file(side_codec, data)
    part = contents.side.get(Adaptation)
    before = synthesised(side_codec, contents, contents.side.without(Adaptation))
    after = synthesised(side_codec, contents, contents.side)
    name = list(side_codec.model.last_weights())[-1]
    sizes = sizes_of_changes(side_codec, part)
    assert sizes == {name: pytest.approx(0.5 / 3**0.5)}  # of one of three values, in units of their root mean square

    figure = draw_adaptation(picture, before, after, sizes, section_size(part.body))
    change, bars, scale_of_colors = figure.axes
    assert np.allclose(change.images[0].get_array(), 255 * 0.587 * 0.5 * scale, atol=1e-3)
    assert [bar.get_width() for bar in bars.patches] == [pytest.approx(50 / 3**0.5)]
    assert [label.get_text() for label in bars.get_yticklabels()] == [name.removeprefix("g_s.")]
    assert bars.axison and bars.get_xlabel() and scale_of_colors.get_ylabel()
    section = len(read(data).sections[SectionType.ADAPTATION])
    assert f"{section + 6} bytes" in figure.get_suptitle()  # type, length, checksum
    assert set(explain(side_codec, picture, data)) == {"bits.png", "error.png", "adaptation.png", "dictionary.png"}


def test_classes_of_the_filter_have_colours_of_their_own_and_none_is_gray():
    colors = _class_colors()(np.arange(CLASSES))[:, :3]
    assert len({tuple(color) for color in colors}) == CLASSES
    assert (colors.max(1) - colors.min(1)).min() > 0.3


def test_every_scale_says_what_it_is(side_codec, picture, files):
    contents = open_file(side_codec, files[0])
    coefficients = contents.side.get(Filter).coefficients
    figures = [
        draw_errors(picture, contents, contents),
        draw_filter(picture, unfiltered(side_codec, contents), coefficients),
    ]
    for figure in figures:
        scales = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
        assert len(scales) == 2 and all(axes.get_ylabel() for axes in scales)


def test_a_file_without_side_information_has_no_drawings_of_it(side_codec, picture, files):
    assert set(explain(side_codec, picture, files[1])) == {"bits.png", "error.png", "dictionary.png"}
