from __future__ import annotations

import math

import pytest

from tto.bench.bdrate import bd_rate, compare_curves
from tto.bench.curves import compare
from tto.bench.datasets import dataset_names
from tto.bench.published import REFERENCES, published_curves

BPP, PSNR = [0.1, 0.2, 0.4, 0.8], [28.0, 31.0, 34.0, 37.0]


@pytest.mark.parametrize("codec, percent", [("dcae", -16.98), ("hpcm-large", -19.96), ("tcm-large", -11.73)])
def test_published_curves_against_vtm(codec, percent):
    curves = {curve.codec: curve for curve in published_curves("kodak")}
    result = compare(curves["vtm-9.1"], curves[codec])
    assert result.percent == pytest.approx(percent, abs=0.005)
    assert result.overlap == 1  # VTM's curve covers the whole of each


@pytest.mark.parametrize("dataset", dataset_names())
def test_every_published_curve_has_a_source_and_rises(dataset):
    curves = published_curves(dataset)
    assert "vtm-9.1" in [curve.codec for curve in curves]
    for curve in curves:
        assert curve.source
        assert curve.values("bpp") == sorted(curve.values("bpp"))
        assert curve.on_axis("psnr") == sorted(curve.on_axis("psnr"))
    assert REFERENCES[0] == "vtm-9.1"


def test_a_folder_of_ones_own_has_no_published_curves():
    assert published_curves("holiday") == []


def test_the_same_curve_at_half_the_rate_saves_half():
    assert bd_rate(BPP, PSNR, [rate / 2 for rate in BPP], PSNR) == pytest.approx(-50)
    assert bd_rate(BPP, PSNR, BPP, PSNR) == pytest.approx(0)


def test_order_and_number_of_points_do_not_matter():
    straight = bd_rate(BPP, PSNR, [0.09, 0.18, 0.36], [28.0, 31.0, 34.0])
    assert straight == pytest.approx(-10)
    assert bd_rate(BPP[::-1], PSNR[::-1], [0.36, 0.09, 0.18], [34.0, 28.0, 31.0]) == straight


def test_overlap_is_the_share_of_the_narrower_curve():
    result = compare_curves(BPP, PSNR, [0.3, 0.6, 1.2], [34.0, 37.0, 40.0])
    assert (result.low, result.high, result.overlap) == (34.0, 37.0, 0.5)


@pytest.mark.parametrize(
    "rates, qualities",
    [([1.0, 2.0], [50.0, 60.0]), ([0.2], [31.0]), ([], []), ([0.1, 0.2], [30.0, math.inf])],
)
def test_nothing_in_common_gives_nan(rates, qualities):
    result = compare_curves(BPP, PSNR, rates, qualities)
    assert math.isnan(result.percent)
    assert result.overlap == 0


def test_a_lossless_point_is_left_out():
    assert bd_rate(BPP, PSNR, [*BPP, 9.0], [*PSNR, math.inf]) == pytest.approx(0)


def test_of_two_points_with_one_quality_the_cheaper_counts():
    assert bd_rate(BPP, PSNR, [*BPP, 0.7], [*PSNR, 34.0]) == pytest.approx(0)


def test_lists_that_do_not_match_and_rates_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="4 rates but 3"):
        bd_rate(BPP, PSNR[:3], BPP, PSNR)
    with pytest.raises(ValueError, match="positive"):
        bd_rate(BPP, PSNR, [0.0, *BPP[1:]], PSNR)
