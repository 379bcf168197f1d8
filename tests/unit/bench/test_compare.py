from __future__ import annotations

import math

import pytest

from tto.bench.compare import compare_runs
from tto.errors import BadArgument


def test_ten_percent_fewer_bytes_on_every_image_is_certain(make_rows):
    (comparison,) = compare_runs(make_rows("tto", 0.1, "none"), make_rows("tto", 0.09, "none"))
    assert comparison.mean.percent == pytest.approx(-10)
    assert comparison.mean.overlap == 1
    assert (comparison.low, comparison.high) == (pytest.approx(-10), pytest.approx(-10))
    assert {image: one.percent for image, one in comparison.per_image.items()} == {
        "a.png": pytest.approx(-10),
        "b.png": pytest.approx(-10),
        "c.png": pytest.approx(-10),
    }


def test_the_interval_spans_images_that_disagree_and_is_the_same_every_time(make_rows, monkeypatch):
    monkeypatch.setattr("tto.bench.compare.RESAMPLES", 1000)
    anchor = make_rows("tto", 0.1, "none", "abcdefgh")
    test = make_rows("tto", 0.08, "none", "abcd") + make_rows("tto", 0.11, "none", "abcdefgh")[12:]
    (first,), (second,) = compare_runs(anchor, test), compare_runs(anchor, test)
    assert first == second
    assert -20 < first.low < first.mean.percent < first.high < 10
    assert (first.low, first.high) == pytest.approx((-14.9, 6.8), abs=0.5)  # half of the draws: −6.6 … 0.9


def test_only_images_with_the_same_pixels_count(make_rows):
    other = make_rows("tto", 0.05, "none", "a", content="changed") + make_rows("tto", 0.1, "none", "b")
    (comparison,) = compare_runs(make_rows("tto", 0.1, "none"), other)
    assert list(comparison.per_image) == ["b.png"]
    assert math.isnan(comparison.low) and math.isnan(comparison.high)  # one image says nothing of others


def test_an_image_that_lacks_a_quality_is_left_out(make_rows):
    (comparison,) = compare_runs(make_rows("tto", 0.1, "none"), make_rows("tto", 0.1, "none")[:-1])
    assert list(comparison.per_image) == ["a.png", "b.png"]


def test_curves_of_one_name_are_compared_and_two_single_ones_whatever_their_names(make_rows):
    many = make_rows("jpeg", 0.3) + make_rows("tto", 0.1, "none")
    assert [one.label_b for one in compare_runs(many, many)] == ["jpeg", "tto (none)"]
    (single,) = compare_runs(make_rows("jpeg", 0.3), make_rows("webp", 0.15))
    assert (single.label_a, single.label_b) == ("jpeg", "webp")
    assert single.mean.percent == pytest.approx(-50)


def test_nothing_in_common_is_refused(make_rows):
    with pytest.raises(BadArgument, match="nothing to compare: the first has jpeg, tto"):
        compare_runs(make_rows("jpeg", 0.3) + make_rows("tto", 0.1), make_rows("webp", 0.3))
    with pytest.raises(BadArgument, match="no image in common"):
        compare_runs(make_rows("jpeg", 0.3, images="a"), make_rows("jpeg", 0.3, images="b"))
