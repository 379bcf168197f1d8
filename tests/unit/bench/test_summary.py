from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tto.bench.curves import compare, mean_curves
from tto.bench.published import published_curves
from tto.bench.summary import summarize
from tto.bench.tables import comparison_cells, latex, markdown, ms_ssim_cells, point_cells, summary_cells


@pytest.fixture
def curves(make_rows):
    rows = make_rows("jpeg", 0.3) + make_rows("tto", 0.1, "none") + make_rows("tto", 0.09, "fast")
    return mean_curves(rows)


def test_a_point_is_the_mean_of_the_images_figures(curves):
    first = curves[0].points[0]
    assert (curves[0].label, curves[1].label) == ("jpeg", "tto (none)")
    assert first.bpp == pytest.approx(0.3 * (1 + 1.1 + 1.2) / 3)
    assert first.psnr == pytest.approx(31)  # mean of 30, 31 and 32 dB
    assert first.ms_ssim_db == pytest.approx(10)
    assert first.peak_memory_mb == 102  # the largest


def test_a_quality_that_some_image_lacks_is_no_point(make_rows):
    (curve,) = mean_curves(make_rows("jpeg", 0.3)[:-1])
    assert curve.values("quality") == [1, 2]


def test_one_image_without_ms_ssim_leaves_the_mean_without(make_rows):
    rows = make_rows("jpeg", 0.3)
    (curve,) = mean_curves([replace(rows[0], ms_ssim=math.nan), *rows[1:]])
    assert math.isnan(curve.points[0].ms_ssim_db)
    assert curve.points[1].ms_ssim_db > 0
    assert compare(curve, curve, "ms_ssim_db").percent == pytest.approx(0)


def test_a_summary_line_compares_with_anchors_and_with_no_effort(curves):
    jpeg, none, fast = summarize(curves)
    assert none.bd_rate["jpeg"].percent == pytest.approx(100 * (1 / 3 - 1))
    assert "jpeg" not in jpeg.bd_rate
    assert fast.against_none.percent == pytest.approx(-10)
    assert fast.J_gain == pytest.approx(10)
    assert math.isnan(none.against_none.percent) and math.isnan(jpeg.J_gain)
    assert none.encode_seconds == pytest.approx(2)


def test_published_vtm_and_bpg_become_anchors(curves):
    lines = summarize([*curves, *published_curves("kodak")])
    assert list(lines[1].bd_rate) == ["jpeg", "vtm-9.1, published", "bpg-444, published"]
    dcae = next(line for line in lines if line.curve.codec == "dcae")
    assert dcae.bd_rate["vtm-9.1, published"].percent == pytest.approx(-16.98, abs=0.005)


def test_the_summary_as_markdown(curves):
    text = markdown(*summary_cells(summarize(curves)))
    lines = text.splitlines()
    assert lines[0].startswith("| codec      | BD-rate % vs jpeg | BD-rate % vs none | J gain % | encode s |")
    assert lines[1].startswith("| ---------- | ----------------: |")
    assert "| tto (fast) |            -70.00 |            -10.00 |    10.00 |    2.000 |" in text
    assert "| 0.33–1.32 | 31.0–37.0 |" in text  # means over the images
    assert len({len(line) for line in lines}) == 1


def test_ms_ssim_has_its_own_bd_rates_where_it_was_measured(curves, make_rows):
    header, cells = ms_ssim_cells(summarize([*curves, *published_curves("kodak")]))
    assert header == ["codec", "MS-SSIM BD-rate % vs jpeg"]
    assert cells == [["tto (none)", "-66.67"], ["tto (fast)", "-70.00"]]
    small = mean_curves(make_rows("jpeg", 0.3, ms_ssim=math.nan) + make_rows("webp", 0.2, ms_ssim=math.nan))
    assert ms_ssim_cells(summarize(small))[1] == []


def test_columns_that_would_hold_nothing_are_left_out(make_rows):
    header, cells = summary_cells(summarize(mean_curves(make_rows("jpeg", 0.3))))
    assert "J gain %" not in header
    assert all(len(row) == len(header) for row in cells)


def test_latex_has_minus_signs_and_no_bare_specials():
    text = latex(["codec", "BD-rate %"], [["a_b & c", "-3.10"], ["d", "–"]])
    assert r"a\_b \& c & $-3.10$ \\" in text
    assert r"BD-rate \%" in text
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule")


def test_the_table_of_points_holds_what_was_measured_here(curves):
    header, cells = point_cells([*curves, *published_curves("kodak")])
    assert len(cells) == 9
    assert cells[3][:4] == ["tto (none)", "1", "0.1100", "31.00"]
    assert header[-1] == "decode s"


def test_the_table_of_a_comparison_states_interval_and_overlap(make_rows):
    from tto.bench.compare import compare_runs

    (comparison,) = compare_runs(make_rows("tto", 0.1, "none"), make_rows("tto", 0.09, "none"))
    _, cells = comparison_cells(comparison)
    assert cells[0] == ["mean curve", "-10.00", "-10.00 … -10.00", "31.0–37.0", "100"]
    assert [row[0] for row in cells[1:]] == ["a.png", "b.png", "c.png"]
